package servertest

import (
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/go-quicktest/qt"
)

// History is what several clients have seen. Its methods may be called from several
// goroutines.
type History struct {
	mu    sync.Mutex
	ops   []porcupine.Operation
	begin time.Time
}

// NewHistory begins a history.
func NewHistory() *History { return &History{begin: time.Now()} }

// never is the time of an answer that has not come: what was asked for may have
// happened at any time since, or never.
const never = int64(1) << 60

// Add adds what a client has asked for, and the answer; nil if none came.
func (h *History) Add(client int, in, out any, call, back time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := porcupine.Operation{ClientId: client, Input: in, Output: out, Call: int64(call.Sub(h.begin)), Return: never}
	if out != nil {
		o.Return = int64(back.Sub(h.begin))
	}
	h.ops = append(h.ops, o)
}

// Len is how many have been added.
func (h *History) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops)
}

// Check says whether a model can have been through the history.
func (h *History) Check(t testing.TB, model porcupine.Model, want porcupine.CheckResult) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	qt.Check(t, qt.Equals(porcupine.CheckOperationsTimeout(model, h.ops, 2*time.Minute), want), qt.Commentf("%d operations", len(h.ops)))
}
