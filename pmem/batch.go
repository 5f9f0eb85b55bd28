package pmem

import "hash/crc32"

// What is done with a payload, when the record is appended or at the commit.
const (
	payloadDone  = iota // nothing: there is none, or it was done with
	payloadSum          // take its checksum
	payloadFlush        // and flush it
	payloadCopy         // and copy it into its frame before that
	payloadWrite        // flush it: its checksum is known
)

// Payloads of up to these lengths in bytes are left to the commit. On amd64 a
// locked instruction, of which a lock is made, waits until every flush and
// non-temporal store before it has left the core. At the commit the payloads of
// a batch share one such wait, which is as long as to copy some KiB. Against it
// stand a second copy, or lines that are no longer in the first-level cache.
const (
	copyLater  = 4 << 10
	placeLater = 16 << 10
)

// copiesMax bounds the payloads that are kept in memory until the commit, so
// that they are still in a cache then.
const copiesMax = 128 << 10

// batch is what was appended, and what its commit has to do.
type batch struct {
	entries []byte  // encoded, but for what sealEntry fills in
	todo    []uint8 // of the payload of each entry
	copies  []byte  // the payloads to be copied, one behind the other

	frames []uint32 // of the record that is being appended by copy
}

// reset empties the batch and keeps its memory.
func (b *batch) reset() batch {
	return batch{b.entries[:0], b.todo[:0], b.copies[:0], b.frames[:0]}
}

// add appends an entry.
func (b *batch) add(e *entry, todo uint8) {
	k := len(b.entries)
	b.entries = append(b.entries, noEntry[:]...) // room is kept from one batch to the next
	b.todo = append(b.todo, todo)
	e.encode(b.entries[k:])
}

// finishPayloads does what was left to do for the payloads of a batch. No lock
// is taken in between, see copyLater.
func (p *Pool) finishPayloads(b *batch) {
	copies := b.copies
	for i, todo := range b.todo {
		if todo == payloadDone {
			continue
		}
		e := b.entries[i*entryLen : (i+1)*entryLen]
		r := runOf(e)
		off, n := p.Offset(r.frame, int(r.off)), uint64(r.len)
		if todo == payloadWrite {
			p.Flush(off, n)
			continue
		}
		var sum uint32
		if todo == payloadCopy {
			sum = p.copySum(off, copies[:n], 0)
			copies = copies[n:]
		} else {
			sum = p.sumPayload(off, n, todo == payloadFlush)
		}
		le.PutUint32(e[36:], sum)
	}
}

// sumPayload returns the CRC-32C of bytes [off, off+n) and flushes them if asked to.
func (p *Pool) sumPayload(off, n uint64, flush bool) uint32 {
	if flush {
		return p.flushSum(off, n)
	}
	return crc32.Checksum(p.mem[off:off+n], castagnoli)
}
