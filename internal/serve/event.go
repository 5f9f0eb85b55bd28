package serve

import (
	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/internal/redisd"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem/kv"
)

// What an Event says.
const (
	Ready   = "ready"
	Stopped = "stopped"
)

// Event is what a server tells about itself, and one line of its --json. It is
// the type of who writes such lines and of who reads them.
type Event struct {
	Event string `json:"event"` // Ready or Stopped
	URL   string `json:"url"`
	// Records found in the log when the pool was opened.
	Records uint64           `json:"records,omitempty"`
	KV      *kv.Stats        `json:"kv,omitempty"` // of a key-value store
	Port    *pasteapi.Status `json:"port,omitempty"`
	HTTP    *httpd.Stats     `json:"http,omitempty"` // of Stopped
	Redis   *redisd.Stats    `json:"redis,omitempty"`
}
