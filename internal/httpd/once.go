package httpd

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"net/http"

	"github.com/pastenet/paste/internal/http1"
	"github.com/pastenet/paste/internal/intake"
)

// onceKey is the Idempotency-Key of a request in progress: a body that is sent again
// with it is stored once.
type onceKey struct {
	name  intake.Sum
	asked hash.Hash // of the target and the body

	known bool // the body is stored already, as record seq
	seq   uint64
	first intake.Sum // asked for then

	status int // of a refusal, and why
	bad    string
}

// maxKey is the length in bytes of the longest key.
const maxKey = 255

const (
	textField   = "Content-Type: text/plain; charset=utf-8\r\n"
	keyConflict = "another body was stored with this Idempotency-Key, or to another path\n"
)

// beginOnce looks at the Idempotency-Key of a request whose body is to be stored.
func (l *loop) beginOnce(c *conn, r *http1.Request) {
	c.key = &onceKey{asked: sha256.New(), status: http.StatusBadRequest}
	k := c.key
	name, ok := keyName(r.IdempotencyKey)
	switch {
	case !ok:
		k.bad = "an Idempotency-Key is 1 to 255 characters, or a string of them in double quotes"
	case l.s.cfg.Persist == PersistNone:
		k.status, k.bad = http.StatusNotImplemented, "nothing is stored here, so there is nothing that an Idempotency-Key could do"
	}
	if k.bad != "" {
		c.status = stBadKey
		return
	}
	k.name = sha256.Sum256(name)
	k.asked.Write(r.Target)
	k.asked.Write([]byte{0})
	l.s.lockLog()
	err := k.find(l.s.kept)
	l.s.unlockLog()
	if err != nil {
		l.Log.Error("an idempotency key cannot be read", "err", err)
		k.status, k.bad, c.status = http.StatusInternalServerError, "the idempotency keys are damaged", stBadKey
	}
}

// keyName takes a key out of its field: a string of RFC 9651 (3.3.3), as the IETF's
// draft has it, or the bare characters, as many clients send it.
func keyName(field []byte) (name []byte, ok bool) {
	if quoted := len(field) > 0 && field[0] == '"'; !quoted {
		return field, len(field) > 0 && len(field) <= maxKey && bytes.IndexByte(field, '"') < 0
	}
	rest := field[1:]
	for i := 0; i < len(rest); i++ {
		switch ch := rest[i]; {
		case ch == '"':
			return name, i == len(rest)-1 && len(name) > 0 && len(name) <= maxKey
		case ch == '\\':
			if i++; i == len(rest) || rest[i] != '"' && rest[i] != '\\' {
				return nil, false
			}
			name = append(name, rest[i])
		case ch < ' ' || ch > '~':
			return nil, false
		default:
			name = append(name, ch)
		}
	}
	return nil, false // no quote ends it
}

func (k *onceKey) find(kept *intake.State) (err error) {
	k.seq, k.first, k.known, err = kept.Find(k.name)
	return err
}

// differs says whether something else is asked for than what was stored.
func (k *onceKey) differs() bool {
	return k.known && k.first != intake.Sum(k.asked.Sum(nil))
}

// appendOnce appends the body unless it is there, also by another ring's hand since
// its request began. What it finds may not be durable yet: the caller commits.
func (l *loop) appendOnce(c *conn) (seq uint64, err error) {
	k := c.key
	if !k.known {
		err = k.find(l.s.kept)
	}
	if err != nil || k.known {
		return k.seq, err
	}
	if err := l.s.kept.RoomForKey(); err != nil {
		return 0, err
	}
	if seq, err = l.appendBody(c); err != nil {
		return 0, err
	}
	return seq, l.s.kept.Remember(k.name, intake.Sum(k.asked.Sum(nil)), seq)
}
