package raftkv

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

const streamMagic = "PASTESN1"

// maxValue bounds what a torn length can make a reader allocate.
const maxValue = 1 << 31

// ErrTorn: a snapshot's stream that is not whole.
var ErrTorn = errors.New("torn snapshot")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// writer writes a stream; the first error stays with the buffer.
type writer struct {
	out   *bufio.Writer
	sum   hash.Hash32
	count uint64
	head  []byte
}

func newWriter(w io.Writer, index uint64) *writer {
	s := &writer{out: bufio.NewWriterSize(w, 64<<10), sum: crc32.New(castagnoli)}
	s.put(le.AppendUint64([]byte(streamMagic), index))
	return s
}

func (w *writer) put(b []byte) error {
	w.sum.Write(b)
	_, err := w.out.Write(b)
	return err
}

func (w *writer) item(key, value []byte) error {
	w.count++
	w.head = binary.AppendUvarint(w.head[:0], uint64(len(key))+1)
	w.head = binary.AppendUvarint(w.head, uint64(len(value)))
	return errors.Join(w.put(w.head), w.put(key), w.put(value))
}

func (w *writer) end() error {
	if err := w.put(le.AppendUint64([]byte{0}, w.count)); err != nil {
		return err
	}
	return errors.Join(w.put(le.AppendUint32(nil, w.sum.Sum32())), w.out.Flush())
}

// reader reads what writer wrote.
type reader struct {
	in    *bufio.Reader
	sum   hash.Hash32
	index uint64
	count uint64
}

func newReader(r io.Reader) (*reader, error) {
	s := &reader{in: bufio.NewReaderSize(r, 64<<10), sum: crc32.New(castagnoli)}
	b, err := s.take(uint64(len(streamMagic) + 8))
	if err != nil {
		return nil, err
	}
	if string(b[:len(streamMagic)]) != streamMagic {
		return nil, fmt.Errorf("%w: it does not begin as one", ErrTorn)
	}
	s.index = le.Uint64(b[len(streamMagic):])
	return s, nil
}

// ReadByte is for binary.ReadUvarint.
func (r *reader) ReadByte() (byte, error) {
	b, err := r.in.ReadByte()
	if err == nil {
		r.sum.Write([]byte{b})
	}
	return b, err
}

func (r *reader) take(n uint64) ([]byte, error) {
	if n > maxValue {
		return nil, fmt.Errorf("%w: a length of %d bytes", ErrTorn, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r.in, b); err != nil {
		return nil, torn(err)
	}
	r.sum.Write(b)
	return b, nil
}

func torn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early", ErrTorn)
	}
	return err
}

// item returns the next key, or io.EOF behind the end of a stream that is whole.
func (r *reader) item() (key, value []byte, err error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, nil, torn(err)
	}
	if n == 0 {
		return nil, nil, r.end()
	}
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, nil, torn(err)
	}
	if n-1 > MaxKey {
		return nil, nil, fmt.Errorf("%w: a key of %d bytes", ErrTorn, n-1)
	}
	if key, err = r.take(n - 1); err != nil {
		return nil, nil, err
	}
	value, err = r.take(size)
	r.count++
	return key, value, err
}

func (r *reader) end() error {
	b, err := r.take(8)
	if err != nil {
		return err
	}
	want := r.sum.Sum32()
	sum, err := r.take(4)
	switch {
	case err != nil:
		return err
	case le.Uint64(b) != r.count || le.Uint32(sum) != want:
		return fmt.Errorf("%w: %d keys, its end says %d, or the checksum is wrong", ErrTorn, r.count, le.Uint64(b))
	}
	if _, err := r.in.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: it goes on behind its end", ErrTorn)
	}
	return io.EOF
}
