package pmemsim

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// ErrPower is what every call gets once the power is gone.
var ErrPower = errors.New("no power")

// FS is a directory of files behind a page cache. It is told of every system
// call that changes them (Call); what the kernel shows is the cache. Only what
// was synced is certain to survive Restart: of each sector written since, of a
// file's size, and of each name either the old or the new state does.
//
// The files are real ones, which are never synced. One goroutine at a time may
// use it.
type FS struct {
	// Drop, if not nil, is asked about every call; one for which it returns
	// true has no effect: a bug put into the code under test.
	Drop func(Call) bool

	dir    string
	rng    *rand.Rand
	inodes map[uint64]*inode // by number
	names  map[string]uint64 // durable
	log    []string          // calls
	cutAt  int
	cut    bool
	failAt int
	errno  error
	failed bool
}

type inode struct {
	file    *os.File // keeps the number from being used again
	durable []byte
	cached  []byte // buffer of read
	// Sectors whose sync failed: the kernel holds them for clean, and no later
	// sync writes them.
	lost map[int][]byte
}

// NewFS makes an FS of dir, all of whose files are durable.
func NewFS(dir string, rng *rand.Rand) (*FS, error) {
	fs := &FS{dir: dir, rng: rng}
	return fs, fs.load()
}

func (fs *FS) load() error {
	fs.inodes, fs.names = map[uint64]*inode{}, map[string]uint64{}
	list, err := fs.list()
	if err != nil {
		return err
	}
	for name, ino := range list {
		f, err := os.Open(filepath.Join(fs.dir, name))
		if err != nil {
			return err
		}
		n, err := fs.inode(f)
		f.Close()
		if err != nil {
			return err
		}
		b, err := n.read()
		if err != nil {
			return err
		}
		n.durable = bytes.Clone(b)
		fs.names[name] = ino
	}
	return nil
}

// list reads the names that the cache has.
func (fs *FS) list() (map[string]uint64, error) {
	entries, err := os.ReadDir(fs.dir)
	names := map[string]uint64{}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			return nil, err
		}
		names[e.Name()] = st.Sys().(*syscall.Stat_t).Ino
	}
	return names, err
}

// inode finds or adds the one of an open file.
func (fs *FS) inode(f *os.File) (*inode, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	ino := st.Sys().(*syscall.Stat_t).Ino
	if n := fs.inodes[ino]; n != nil {
		return n, nil
	}
	own, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	n := &inode{file: own, lost: map[int][]byte{}}
	fs.inodes[ino] = n
	return n, nil
}

// Close gives back what the FS holds, and leaves the files.
func (fs *FS) Close() {
	for _, n := range fs.inodes {
		n.file.Close()
	}
	fs.inodes = nil
}

// Calls returns the names of the calls so far.
func (fs *FS) Calls() []string { return fs.log }

// CutAfter turns the power off at the n-th call from now, before it has an
// effect. 0 means never.
func (fs *FS) CutAfter(n int) {
	if fs.cutAt = 0; n > 0 {
		fs.cutAt = len(fs.log) + n
	}
}

// FailAfter makes the n-th call from now fail with err, without an effect. What
// a failed sync should have written is never written by a later one.
func (fs *FS) FailAfter(n int, err error) { fs.failAt, fs.errno = len(fs.log)+n, err }

// Cut reports whether the power is off.
func (fs *FS) Cut() bool { return fs.cut }

// Failed reports whether the call of FailAfter has come.
func (fs *FS) Failed() bool { return fs.failed }

// Call makes a system call by do, which is about the open file or directory f
// if that is not nil.
func (fs *FS) Call(call string, f *os.File, do func() error) error {
	if fs.cut {
		return ErrPower
	}
	fs.log = append(fs.log, call)
	if len(fs.log) == fs.cutAt {
		fs.cut = true
		return ErrPower
	}
	if fs.Drop != nil && fs.Drop(Call{Op: call, stack: stack(true)}) {
		return nil
	}
	fail := len(fs.log) == fs.failAt
	fs.failed = fs.failed || fail
	if f == nil {
		if fail {
			return fs.errno
		}
		return do()
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.IsDir() {
		if fail {
			return fs.errno
		}
		fs.names, err = fs.list()
		return err
	}
	n, err := fs.inode(f)
	if err != nil {
		return err
	}
	if fs.rng.IntN(4) == 0 { // write-back of its own accord
		if err := n.settle(fs.rng, 0.3); err != nil {
			return err
		}
	}
	switch {
	case call == "fdatasync" || call == "fsync":
		if fail {
			return errors.Join(fs.errno, n.lose())
		}
		return n.settle(fs.rng, 1)
	case fail:
		return fs.errno
	case call == "fadvise":
		return n.forget()
	}
	return do()
}

// read returns what the cache holds, until it is called again.
func (n *inode) read() ([]byte, error) {
	st, err := n.file.Stat()
	if err != nil {
		return nil, err
	}
	n.cached = slices.Grow(n.cached[:0], int(st.Size()))[:st.Size()]
	_, err = n.file.ReadAt(n.cached, 0)
	return n.cached, err
}

// dirty yields the sectors that a sync would write.
func (n *inode) dirty(cached []byte, yield func(s int, now []byte)) {
	for off := 0; off < len(cached); off += sector {
		now := cached[off:min(off+sector, len(cached))]
		if off+len(now) <= len(n.durable) && bytes.Equal(now, n.durable[off:off+len(now)]) {
			continue
		}
		if s := off / sector; n.lost[s] == nil || !bytes.Equal(n.lost[s], now) {
			yield(s, now)
		}
	}
}

// settle lets a share of what is dirty reach the medium, and with all of it
// the size.
func (n *inode) settle(rng *rand.Rand, share float64) error {
	cached, err := n.read()
	if err != nil {
		return err
	}
	n.reach(cached, rng, share)
	return nil
}

func (n *inode) reach(cached []byte, rng *rand.Rand, share float64) {
	size := len(n.durable)
	if rng.Float64() < share {
		size = len(cached)
	}
	n.durable = append(n.durable, make([]byte, max(0, size-len(n.durable)))...)[:size]
	n.dirty(cached, func(s int, now []byte) {
		if rng.Float64() < share && s*sector < size {
			copy(n.durable[s*sector:], now)
			delete(n.lost, s)
		}
	})
}

// lose is a sync that failed.
func (n *inode) lose() error {
	cached, err := n.read()
	if err == nil {
		n.dirty(cached, func(s int, now []byte) { n.lost[s] = bytes.Clone(now) })
	}
	return err
}

// forget drops what is clean from the cache: it is read from the medium again.
func (n *inode) forget() error {
	cached, err := n.read()
	if err != nil {
		return err
	}
	for s, was := range n.lost {
		at := s * sector
		if at+len(was) > len(cached) || !bytes.Equal(was, cached[at:at+len(was)]) {
			continue // cut off, or dirty again
		}
		b := make([]byte, len(was))
		copy(b, n.durable[min(at, len(n.durable)):])
		if _, err := n.file.WriteAt(b, int64(at)); err != nil {
			return err
		}
	}
	clear(n.lost)
	return nil
}

// Restart turns the power on again. If the machine had lost it, the files are
// now what survived; otherwise only the process had died, and the cache stays.
func (fs *FS) Restart(power bool) error {
	fs.cut, fs.cutAt, fs.failAt, fs.failed = false, 0, 0, false
	if !power {
		return nil
	}
	now, err := fs.list()
	if err != nil {
		return err
	}
	all := maps.Clone(now)
	maps.Copy(all, fs.names)
	found := map[string][]byte{}
	share := []float64{0, 0.5, 0.5, 1}[fs.rng.IntN(4)]
	for _, name := range slices.Sorted(maps.Keys(all)) {
		ino, ok := fs.names[name]
		if fs.rng.Float64() < share {
			ino, ok = now[name]
		}
		if !ok {
			continue
		}
		found[name] = nil // what nobody wrote to
		if n := fs.inodes[ino]; n != nil {
			if err := n.settle(fs.rng, share); err != nil {
				return err
			}
			found[name] = bytes.Clone(n.durable)
		}
	}
	fs.Close()
	for name := range now {
		if err := os.Remove(filepath.Join(fs.dir, name)); err != nil {
			return err
		}
	}
	for name, b := range found {
		if err := os.WriteFile(filepath.Join(fs.dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return fs.load()
}
