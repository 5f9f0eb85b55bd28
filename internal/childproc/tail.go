package childproc

import (
	"fmt"
	"strings"
	"sync"
)

// Tail keeps the end of what is written to it, for the message about a child
// process that failed. It may be used from several goroutines.
type Tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 8192 // bytes

func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > tailSize {
		t.b = append(t.b[:0], t.b[len(t.b)-tailSize:]...)
	}
	return len(p), nil
}

func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(string(t.b)), " ")
}

// Explain adds what was written last to an error.
func (t *Tail) Explain(err error) error {
	if text := t.String(); text != "" {
		return fmt.Errorf("%w; it said: %s", err, text)
	}
	return err
}
