package raftkv

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pastenet/paste/pmem/kv"
)

// MaxKey is the length in bytes of the longest key.
const MaxKey = kv.MaxKey - 1

const commandVersion = 1

const (
	opPut    = 1
	opDelete = 2
)

// ErrCommand: an entry of raft's log that is no command of this version.
var ErrCommand = errors.New("unknown command")

// Command is a group of changes, all of which are made or none. The zero Command
// is empty, and ready to be used.
type Command struct{ b []byte }

// Put adds that key gets a value. Both are copied.
func (c *Command) Put(key, value []byte) error {
	if err := c.begin(opPut, key); err != nil {
		return err
	}
	c.b = append(binary.AppendUvarint(c.b, uint64(len(value))), value...)
	return nil
}

// Delete adds that key goes, if it is there.
func (c *Command) Delete(key []byte) error { return c.begin(opDelete, key) }

func (c *Command) begin(op byte, key []byte) error {
	if len(key) > MaxKey {
		return fmt.Errorf("%w: %d bytes; the limit is %d", kv.ErrKeyTooLong, len(key), MaxKey)
	}
	if len(c.b) == 0 {
		c.b = append(c.b, commandVersion)
	}
	c.b = append(c.b, op)
	c.b = append(binary.AppendUvarint(c.b, uint64(len(key))), key...)
	return nil
}

// Bytes returns what goes into raft's log. It is the Command's.
func (c *Command) Bytes() []byte { return c.b }

// parse appends the changes of a command, which point into b.
func parse(b []byte, changes []kv.Change) ([]kv.Change, error) {
	if len(b) == 0 || b[0] != commandVersion {
		return nil, fmt.Errorf("%w: its version is none of this program", ErrCommand)
	}
	for b = b[1:]; len(b) > 0; {
		op := b[0]
		key, rest, ok := cutBytes(b[1:])
		if !ok || len(key) > MaxKey {
			return nil, fmt.Errorf("%w: a key is torn", ErrCommand)
		}
		c := kv.Change{Key: dataKey(key)}
		switch op {
		case opDelete:
			c.Delete = true
		case opPut:
			if c.Bytes, rest, ok = cutBytes(rest); !ok {
				return nil, fmt.Errorf("%w: a value is torn", ErrCommand)
			}
		default:
			return nil, fmt.Errorf("%w: operation %d", ErrCommand, op)
		}
		changes = append(changes, c)
		b = rest
	}
	return changes, nil
}

// cutBytes cuts off bytes with their length in front.
func cutBytes(b []byte) (bytes, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, false
	}
	return b[k:][:n], b[k:][n:], true
}
