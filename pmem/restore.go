package pmem

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Restore makes a new pool at path, as Create does, from what Dump wrote. The
// records keep their sequence numbers and headers, and get the first epoch. The
// file gets its name when all of it is there; a device that an interrupted
// Restore leaves behind holds a part.
func Restore(r io.Reader, path string, o Options) (*Pool, error) {
	p, err := create(path, o, func(p *Pool) error { return p.Guard(func() error { return p.restore(r) }) })
	if err != nil {
		return nil, fmt.Errorf("restore pool: %w", err)
	}
	return p, nil
}

func (p *Pool) restore(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<20)
	var magic [len(archiveMagic)]byte
	if _, err := io.ReadFull(in, magic[:]); err != nil || string(magic[:]) != archiveMagic {
		return fmt.Errorf("%w: it does not begin like one", ErrArchive)
	}
	for {
		s := &sectionReader{r: in}
		var kind [1]byte
		if _, err := io.ReadFull(s, kind[:]); err != nil {
			return cutOff(err)
		}
		var err error
		switch kind[0] {
		case sectionLog:
			err = p.restoreLog(s)
		case sectionRoot:
			err = p.restoreRoot(s)
		case sectionEnd:
		default:
			err = fmt.Errorf("%w: a section of kind %q, which this program does not know", ErrArchive, kind[0])
		}
		if err != nil {
			return err
		}
		if n, err := s.Read(kind[:]); n > 0 {
			return fmt.Errorf("%w: a section is longer than its content", ErrArchive)
		} else if err != io.EOF {
			return err
		}
		if kind[0] == sectionEnd {
			return nil
		}
	}
}

// restoreBatch is how many bytes are committed at once.
const restoreBatch = 8 << 20

func (p *Pool) restoreLog(s io.Reader) error {
	l := p.log
	var b [9 + MaxHeader]byte
	if _, err := io.ReadFull(s, b[:8]); err != nil {
		return cutOff(err)
	}
	if err := l.startAt(le.Uint64(b[:])); err != nil {
		return err
	}
	var payload bytes.Buffer
	for batch := uint64(0); ; {
		_, err := io.ReadFull(s, b[:9])
		if err == io.EOF {
			return l.Commit()
		}
		if err != nil {
			return cutOff(err)
		}
		n, h := le.Uint64(b[1:]), int(b[0])
		if h > MaxHeader || n > uint64(l.MaxFragments())*uint64(p.g.frameSize) {
			return fmt.Errorf("%w: record %d has a header of %d bytes and a payload of %d, which is more than the pool can hold", ErrArchive, l.Next(), h, n)
		}
		if _, err := io.ReadFull(s, b[9:9+h]); err != nil {
			return cutOff(err)
		}
		payload.Reset() // grows with what is there, whatever n says
		if _, err := io.CopyN(&payload, s, int64(n)); err != nil {
			return cutOff(err)
		}
		if _, err := l.AppendCopyHeader(b[9:9+h], payload.Bytes()); err != nil {
			return fmt.Errorf("record %d: %w", l.Next(), err)
		}
		if batch += n; batch >= restoreBatch {
			if err := l.Commit(); err != nil {
				return err
			}
			batch = 0
		}
	}
}

func (p *Pool) restoreRoot(s io.Reader) error {
	var b [1 + MaxRootName + 4]byte
	if _, err := io.ReadFull(s, b[:1]); err != nil {
		return cutOff(err)
	}
	n := int(b[0])
	if n > MaxRootName {
		return fmt.Errorf("%w: a root's name has %d bytes", ErrArchive, n)
	}
	if _, err := io.ReadFull(s, b[1:1+n+4]); err != nil {
		return cutOff(err)
	}
	name, kind := string(b[1:1+n]), le.Uint32(b[1+n:])
	k, ok := KindOf(kind)
	if !ok || k.Restore == nil {
		return fmt.Errorf("%w: root %q is of kind %#x, which this program cannot restore", ErrKind, name, kind)
	}
	if _, ok := p.Root(name); ok {
		return fmt.Errorf("%w: two roots %q", ErrArchive, name)
	}
	if err := k.Restore(p, name, s); err != nil {
		return fmt.Errorf("root %q (%s): %w", name, k.Name, err)
	}
	return nil
}

// startAt gives the first record of an empty log its sequence number.
func (l *Log) startAt(seq uint64) error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq == 0 || seq > 1<<62 || l.next() != l.head.pos {
		return fmt.Errorf("%w: two logs, or one that begins with record %d", ErrArchive, seq)
	}
	h := l.head
	h.gen++
	h.seq = seq
	if err := writeHead(l.p.mem, l.p.dom, &l.p.g, l.seed, &h); err != nil {
		return err
	}
	l.head, l.last, l.stagedSeq = h, seq, seq
	l.publish()
	return nil
}

// The kinds of this package.

func dumpValue(_ *Pool, _ string, r Root, w io.Writer) error {
	_, err := w.Write(r.Value[:])
	return err
}

func restoreValue(p *Pool, name string, r io.Reader) error {
	var root Root
	if _, err := io.ReadFull(r, root.Value[:]); err != nil {
		return cutOff(err)
	}
	return p.SetRoot(name, root)
}

func dumpFrame(p *Pool, _ string, r Root, w io.Writer) error {
	w.Write(r.Value[:]) // a section's writer keeps no error for later: the next one has it
	_, err := w.Write(p.Frame(r.Frame))
	return err
}

func restoreFrame(p *Pool, name string, r io.Reader) error {
	root := Root{Kind: KindFrame}
	if _, err := io.ReadFull(r, root.Value[:]); err != nil {
		return cutOff(err)
	}
	content, err := io.ReadAll(io.LimitReader(r, 4097))
	if err != nil {
		return err
	}
	if content = bytes.TrimRight(content, "\x00"); len(content) > p.FrameSize() {
		return fmt.Errorf("%w: the frame holds %d bytes, and frames of this pool %d", ErrSize, len(content), p.FrameSize())
	}
	var f [1]uint32
	if p.Alloc(f[:]) == 0 {
		return fmt.Errorf("%w: no free frame", ErrFull)
	}
	root.Frame = f[0]
	clear(p.Frame(f[0]))
	copy(p.Frame(f[0]), content)
	if err := p.Persist(p.Offset(f[0], 0), uint64(p.FrameSize())); err != nil {
		return err
	}
	err = p.SetRoot(name, root)
	if err != nil && !errors.Is(err, ErrIO) {
		p.Unref(f[0])
	}
	return err
}
