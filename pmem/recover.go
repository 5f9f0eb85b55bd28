package pmem

import "fmt"

// lookAhead is how many entries beyond the last intact one recovery inspects to
// tell a log that ended from one that was damaged in the middle.
const lookAhead = 1 << 16

// Recovery is what was found when the pool was opened.
type Recovery struct {
	Records   uint64 // complete records
	Entries   uint64 // their entries
	Bytes     uint64 // of their payload
	Discarded uint64 // entries behind them that were never committed as a whole
	Stopped   string // why the scan ended where it did, in words
	HeadTorn  bool   // the copies of the log head differed: a crash during Truncate or Open
	Damage    error  // wraps ErrDamaged when entries that were durable are wrong
}

// Recovery returns what was found when the pool was opened.
func (l *Log) Recovery() Recovery { return l.recovery }

// recover finds the live records and takes references on their frames. Of a
// damaged log the records before the damage can be read.
func (l *Log) recover() error {
	h, bad, err := l.readHead()
	if err != nil {
		return err
	}
	l.head = h
	l.recovery = Recovery{HeadTorn: bad != noneBad}
	l.bad = bad
	l.scan()
	// The writer of a live pool may have truncated the log under the scan.
	for l.recovery.Damage != nil && l.p.Live() && l.overtaken(l.head.pos) {
		l.p.frames.init(l.p.g.first, l.p.g.frames)
		l.recovery = Recovery{}
		l.scan()
	}
	l.stagedSeq = l.last
	l.publish()
	if l.recovery.Damage != nil {
		l.p.problem(l.recovery.Damage)
	}
	return nil
}

// begin starts a new epoch, before the first store to the log.
func (l *Log) begin() error {
	// The only good copy must not be touched until there are two.
	if l.bad != noneBad {
		if err := writeHeadCopy(l.p.mem, l.p.dom, &l.p.g, l.seed, &l.head, l.bad.index()); err != nil {
			return err
		}
	}
	// Whatever a crash left beyond the tail belongs to an older epoch than
	// anything that will be stored before it, and is known by that.
	if l.recovery.Discarded > 0 {
		// Nothing may make the first of them whole later.
		clear(l.slot(l.tail))
		l.p.dom.Flush(l.slotOffset(l.tail), entryLen)
	}
	l.head.gen++
	l.head.epoch++
	l.head.durable = l.tail
	l.own = l.tail
	return writeHead(l.p.mem, l.p.dom, &l.p.g, l.seed, &l.head)
}

// scan walks the entries from the head, and sets tail and last behind the
// last complete record.
func (l *Log) scan() {
	g := &l.p.g
	r := &l.recovery
	pos, seq, epoch := l.head.pos, l.head.seq, l.head.minEpoch
	l.tail, l.last = pos, seq
	sure := l.head.durable  // entries before it are durable, and so are their payloads
	var bytes, index uint64 // of the record that is being read
	for r.Stopped == "" {
		if pos-l.head.pos == g.logLen {
			r.Stopped = "the log is full"
			break
		}
		e, ok := l.decode(pos)
		if !ok || e.epoch < l.oldest(pos, epoch) {
			if l.judgeEnd(pos, epoch) {
				continue
			}
			break
		}
		// From here on the entry is ours and whole: it must make sense.
		if first := e.flags&flagFirst != 0; e.seq != seq || first != (index == 0) ||
			e.index != uint16(index) || e.epoch > l.head.epoch || !e.sane(g) {
			l.damaged(pos, "it contradicts its neighbours or the pool's geometry")
			break
		}
		epoch = e.epoch
		sure = max(sure, e.durable())
		bytes += uint64(e.len)
		index++
		pos++
		if e.flags&flagLast == 0 {
			continue
		}
		l.adopt(l.tail, pos)
		r.Records++
		r.Entries += index
		r.Bytes += bytes
		seq++
		l.tail, l.last = pos, seq
		bytes, index = 0, 0
	}
	end := pos
	l.verifyFrom(sure)
	r.Discarded = end - l.tail
}

// verifyFrom looks at the payloads of the last batch if it was stored in one
// go with its entries. It cuts the log off before the first record that the
// crash tore.
func (l *Log) verifyFrom(pos uint64) {
	for pos = max(pos, l.head.pos); pos < l.tail; {
		first, err := l.entryAt(pos)
		if err != nil || first.flags&flagUnordered == 0 || first.flags&flagFirst == 0 {
			pos++
			continue
		}
		r, next, err := l.recordAt(pos)
		if err == nil {
			err = r.Verify()
		}
		if err == nil {
			pos = next
			continue
		}
		rec := &l.recovery
		rec.Stopped = fmt.Sprintf("end of the log at entry %d: the commit of record %d was interrupted: %v", pos, first.seq, err)
		l.index.unref(&l.p.frames, pos, l.tail)
		rec.Entries -= l.tail - pos
		rec.Records -= l.last - first.seq
		for p := pos; p < l.tail; p++ {
			if e, err := l.entryAt(p); err == nil {
				rec.Bytes -= uint64(e.len)
			}
		}
		l.tail, l.last = pos, first.seq
		return
	}
}

// judgeEnd decides whether the log ends at pos, whose slot holds no entry of
// ours, or is damaged there: an entry further on that was stored when pos was
// already durable tells. It reports true when the writer of a live pool has
// meanwhile filled the slot, and the scan goes on.
func (l *Log) judgeEnd(pos uint64, epoch uint32) (more bool) {
	if pos < l.head.durable && !l.p.Live() {
		l.damaged(pos, fmt.Sprintf("its checksum is wrong, and the log head says that entries before %d are durable", l.head.durable))
		return false
	}
	limit := l.head.pos + l.p.g.logLen
	for q, end := pos+1, pos+1+lookAhead; q < min(limit, end); q++ {
		e, ok := l.decode(q)
		if !ok || e.epoch < l.oldest(q, epoch) || !e.sane(&l.p.g) {
			continue
		}
		end = q + 1 + lookAhead // a batch may be as long as the log
		if e.durable() <= pos {
			continue
		}
		if again, ok := l.decode(pos); ok && again.epoch >= l.oldest(pos, epoch) && l.p.Live() {
			return true
		}
		l.damaged(pos, fmt.Sprintf("its checksum is wrong, and entry %d of record %d behind it is intact", q, e.seq))
		return false
	}
	l.recovery.Stopped = fmt.Sprintf("end of the log at entry %d", pos)
	return false
}

func (l *Log) damaged(pos uint64, why string) {
	l.recovery.Damage = fmt.Errorf("%w: log entry %d, of record %d, in slot %d: %s", ErrDamaged, pos, l.last, pos%l.p.g.logLen, why)
	l.recovery.Stopped = l.recovery.Damage.Error()
}

// adopt takes the references of one complete record's entries.
func (l *Log) adopt(from, end uint64) {
	for pos := from; pos < end; pos++ {
		if e, ok := l.decode(pos); ok && e.sane(&l.p.g) {
			l.index.set(&e, &l.p.g)
			if !e.isFragment() {
				continue
			}
			for i := range e.frames(&l.p.g) {
				l.p.use(e.frame+i, Shared)
			}
		}
	}
}
