package intake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

// RootName is the name of the tree's root in the pool.
const RootName = "intake"

// Options of a State.
type Options struct {
	// Keys is how many idempotency keys are kept at most; 0 means one for each
	// 4 KiB of the pool, which take about a sixteenth of it.
	Keys uint64
	// Window is for how long a key is kept; 0 means DefaultWindow.
	Window time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// DefaultWindow is for how long an idempotency key is kept.
const DefaultWindow = 24 * time.Hour

// reserve is how many frames the tree keeps for what makes room.
const reserve = 16

// State is what is kept. Its methods are for one goroutine at a time, and for who
// holds whatever lock keeps others from changing the log.
type State struct {
	p       *pmem.Pool
	o       Options
	tree    *btree.Tree // nil until there is something to keep
	cursors map[string]Cursor
	keys    uint64
	changed bool   // since the last Commit
	marks   []mark // by number
	value   btree.Value
	buf     [96]byte
}

var le, be = binary.LittleEndian, binary.BigEndian

// Open reads what is kept in p, and drops what is about records that a crash has
// taken.
func Open(p *pmem.Pool, o Options) (*State, error) {
	if o.Keys == 0 {
		o.Keys = max(uint64(len(p.Mem()))/4096, 16)
	}
	if o.Window == 0 {
		o.Window = DefaultWindow
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &State{p: p, o: o, cursors: map[string]Cursor{}}
	if _, ok := p.Root(RootName); !ok {
		return s, nil
	}
	if err := p.Guard(s.load); err != nil {
		if s.tree != nil {
			s.tree.Close()
		}
		return nil, fmt.Errorf("open what is kept beside the log: %w", err)
	}
	return s, nil
}

func (s *State) load() (err error) {
	if s.tree, err = btree.Open(s.p, RootName, btree.Options{Reserve: reserve}); err != nil {
		return err
	}
	next := s.p.Log().Next()
	var drop [][]byte
	err = s.tree.Ascend(nil, func(e btree.Entry) bool {
		e.Value(&s.value)
		key, v := e.Key(), s.value.Inline
		switch {
		case key[0] == 'c' && len(v) == cursorLen:
			s.cursors[string(key[1:])] = Cursor{Name: string(key[1:]), Next: le.Uint64(v), Protects: v[8] != 0}
		case key[0] == 'k' && len(v) == keyLen:
			if s.keys++; le.Uint64(v) >= next {
				s.keys--
				drop = append(drop, append([]byte(nil), key...))
			}
		case key[0] == 's' && len(key) == 9, key[0] == 't' && len(key) == 9 && len(v) == 8:
			if at := be.Uint64(key[1:]); at > next || key[0] == 's' && at == next {
				drop = append(drop, append([]byte(nil), key...))
			} else if key[0] == 't' {
				s.marks = append(s.marks, mark{at, int64(le.Uint64(v))})
			}
		default:
			err = fmt.Errorf("%w: tree %q has the key %.40q with %d bytes", pmem.ErrDamaged, RootName, key, len(v))
			return false
		}
		return true
	})
	for _, key := range drop {
		if err == nil {
			err = s.delete(key)
		}
	}
	if err == nil && !s.p.ReadOnly() {
		err = s.Commit()
	}
	return err
}

// Close gives back what is held beside the content.
func (s *State) Close() {
	if s.tree != nil {
		s.tree.Close()
	}
}

// Commit makes everything durable. It must come before the log's.
func (s *State) Commit() error {
	if s.tree == nil || !s.changed {
		return nil
	}
	if err := s.tree.Commit(); err != nil {
		return fmt.Errorf("keep what is beside the log: %w", err)
	}
	s.changed = false
	// What makes room has room itself, also when the pool is full by then.
	if err := s.tree.Reserve(s.tree.MostFrames(0)); err != nil && !errors.Is(err, pmem.ErrFull) {
		return fmt.Errorf("keep what is beside the log: %w", err)
	}
	return nil
}

// begin makes the tree, if there is none.
func (s *State) begin() (err error) {
	if s.tree == nil {
		s.tree, err = btree.OpenOrCreate(s.p, RootName, btree.Options{Reserve: reserve})
	}
	return err
}

// put keeps something. It may use what Commit has put aside.
func (s *State) put(key, value []byte) (err error) {
	if err := s.begin(); err != nil {
		return err
	}
	s.changed = true
	_, err = s.tree.Put(key, &btree.Value{Inline: value})
	if errors.Is(err, pmem.ErrFull) {
		if err := s.Commit(); err != nil { // which gives back what only the last state needed
			return err
		}
		s.changed = true
		_, err = s.tree.Put(key, &btree.Value{Inline: value})
	}
	return err
}

func (s *State) delete(key []byte) error {
	if s.tree == nil {
		return nil
	}
	s.changed = true
	_, err := s.tree.Delete(key)
	return err
}

// numbered is a key with a record's number.
func (s *State) numbered(kind byte, seq uint64) []byte {
	return be.AppendUint64(append(s.buf[:0], kind), seq)
}

// first returns the least key of a kind; nil if there is none.
func (s *State) first(kind byte) (key, value []byte, err error) {
	if s.tree == nil {
		return nil, nil, nil
	}
	err = s.tree.Ascend([]byte{kind}, func(e btree.Entry) bool {
		if k := e.Key(); k[0] == kind {
			e.Value(&s.value)
			key, value = append([]byte(nil), k...), append([]byte(nil), s.value.Inline...)
		}
		return false
	})
	return key, value, err
}
