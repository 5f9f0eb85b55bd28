package pmem

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// An archive holds the content of a pool without its frames:
//
//	magic "PASTEAR1"
//	sections, each a sequence of chunks that ends with an empty one:
//	    length u32, at most 65536; CRC-32C u32; bytes
//
// A section begins with its kind: 'L' the log: sequence number u64 of the next
// record to come first, then per record header length u8, payload length u64,
// header, payload; 'R' a root: name length u8, name, kind u32, then what the
// kind's Dump wrote; 'E' the end. The checksum is continued over all chunks of a section.
const (
	archiveMagic = "PASTEAR1"
	chunkMax     = 1 << 16

	sectionLog  = 'L'
	sectionRoot = 'R'
	sectionEnd  = 'E'
)

// ErrArchive: what was to be restored is no archive, or a damaged one.
var ErrArchive = errors.New("damaged archive")

// sectionWriter writes sections; each begins with begin and ends with Close.
type sectionWriter struct {
	w   io.Writer
	buf []byte
	sum uint32
}

func newSectionWriter(w io.Writer) *sectionWriter {
	return &sectionWriter{w: w, buf: make([]byte, 0, chunkMax)}
}

func (s *sectionWriter) begin(kind byte) {
	s.buf, s.sum = append(s.buf[:0], kind), 0
}

func (s *sectionWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		if len(s.buf) == chunkMax {
			if err := s.flush(); err != nil {
				return n, err
			}
		}
		k := min(len(b), chunkMax-len(s.buf))
		s.buf = append(s.buf, b[:k]...)
		b = b[k:]
		n += k
	}
	return n, nil
}

func (s *sectionWriter) flush() error {
	s.sum = crc32.Update(s.sum, castagnoli, s.buf)
	var h [8]byte
	le.PutUint32(h[:], uint32(len(s.buf)))
	le.PutUint32(h[4:], s.sum)
	if _, err := s.w.Write(h[:]); err != nil {
		return err
	}
	_, err := s.w.Write(s.buf)
	s.buf = s.buf[:0]
	return err
}

func (s *sectionWriter) Close() error {
	if len(s.buf) > 0 {
		if err := s.flush(); err != nil {
			return err
		}
	}
	return s.flush()
}

// sectionReader reads one section to its end, which is io.EOF.
type sectionReader struct {
	r    io.Reader
	buf  []byte
	rest []byte
	sum  uint32
	end  bool
}

func (s *sectionReader) Read(b []byte) (int, error) {
	if len(s.rest) == 0 {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *sectionReader) fill() error {
	if s.end {
		return io.EOF
	}
	var h [8]byte
	if _, err := io.ReadFull(s.r, h[:]); err != nil {
		return cutOff(err)
	}
	n := le.Uint32(h[:])
	if n > chunkMax {
		return fmt.Errorf("%w: a chunk of %d bytes", ErrArchive, n)
	}
	if s.buf == nil {
		s.buf = make([]byte, chunkMax)
	}
	s.rest = s.buf[:n]
	if _, err := io.ReadFull(s.r, s.rest); err != nil {
		return cutOff(err)
	}
	s.sum = crc32.Update(s.sum, castagnoli, s.rest)
	if s.sum != le.Uint32(h[4:]) {
		return fmt.Errorf("%w: a checksum is wrong", ErrArchive)
	}
	if n == 0 {
		s.end = true
		return io.EOF
	}
	return nil
}

func cutOff(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it is cut off", ErrArchive)
	}
	return err
}

// Dump writes the records of the log and all structures to w, in a form from
// which Restore makes a pool of another size, frame size or place. Everything
// is verified on the way: Dump fails at the first damage. progress may be nil;
// it is called with the number of bytes written so far.
func (p *Pool) Dump(w io.Writer, progress func(written uint64)) error {
	if err := p.Guard(func() error { return p.dump(w, progress) }); err != nil {
		return fmt.Errorf("dump pool %s: %w", p.file.path(), err)
	}
	return nil
}

func (p *Pool) dump(w io.Writer, progress func(uint64)) error {
	if len(p.problems) > 0 {
		return p.problems[0]
	}
	out := bufio.NewWriterSize(&countingWriter{w: w, report: progress}, min(1<<20, len(p.mem)))
	if _, err := out.WriteString(archiveMagic); err != nil {
		return err
	}
	s := newSectionWriter(out)
	if err := p.dumpLog(s); err != nil {
		return err
	}
	for name, r := range p.Roots() {
		k, ok := KindOf(r.Kind)
		if !ok || k.Dump == nil {
			return fmt.Errorf("%w: root %q is of kind %#x, which cannot be dumped", ErrKind, name, r.Kind)
		}
		s.begin(sectionRoot)
		s.Write(append([]byte{byte(len(name))}, name...))
		binary.Write(s, le, r.Kind)
		if err := k.Dump(p, name, r, s); err != nil {
			return fmt.Errorf("root %q (%s): %w", name, k.Name, err)
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	s.begin(sectionEnd)
	if err := s.Close(); err != nil {
		return err
	}
	return out.Flush()
}

func (p *Pool) dumpLog(s *sectionWriter) error {
	s.begin(sectionLog)
	binary.Write(s, le, p.log.Head())
	for r, err := range p.log.Records() {
		if err == nil {
			err = r.Verify()
		}
		if err != nil {
			return fmt.Errorf("log: %w", err)
		}
		h := append([]byte{byte(len(r.Header))}, le.AppendUint64(nil, uint64(r.Length))...)
		s.Write(append(h, r.Header...))
		if _, err := r.WriteTo(s); err != nil {
			return err
		}
	}
	return s.Close()
}

type countingWriter struct {
	w      io.Writer
	n      uint64
	report func(uint64)
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += uint64(n)
	if c.report != nil {
		c.report(c.n)
	}
	return n, err
}
