package contender

import "sync"

// Exchanger is what a server needs besides its way of reading and writing: the
// requests are parsed, the bodies stored, the replies made. Its connections
// ([Exchanger.Connect]) may be used from several goroutines.
type Exchanger struct {
	stats   *Stats
	replies replies

	mu    sync.Mutex
	store store
}

// NewExchanger makes one for a server; of cfg it takes ResponseBytes, Pool and Stats.
func NewExchanger(cfg *Config) *Exchanger {
	return &Exchanger{stats: cfg.Stats, replies: newReplies(cfg), store: store{pool: cfg.Pool, stats: cfg.Stats}}
}

// Exchange is one connection of an Exchanger, for one goroutine at a time.
type Exchange struct {
	session
	x    *Exchanger
	body []byte // parts of an unfinished body
	out  []byte
}

// Connect begins a connection.
func (x *Exchanger) Connect() *Exchange { return &Exchange{x: x} }

// Handle takes received bytes and returns the replies to what they complete, valid
// until the next call. The bodies that they answer are durable. After more is false
// the connection is closed, when the replies are sent. An error is the log's.
func (c *Exchange) Handle(in []byte) (out []byte, more bool, err error) {
	c.out = c.out[:0]
	requests := c.feed(in, &c.x.replies, c)
	c.x.mu.Lock()
	err = c.x.store.commit()
	c.x.mu.Unlock()
	if err != nil {
		return nil, false, err
	}
	c.x.stats.Requests.Add(requests)
	return c.out, !c.close, nil
}

// piece implements sink.
func (c *Exchange) piece(p []byte, last bool) error {
	if !last { // nothing that others share
		c.body = append(c.body, p...)
		return nil
	}
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	return c.x.store.appendPiece(&c.body, p, last)
}

// reply implements sink.
func (c *Exchange) reply(b []byte) { c.out = append(c.out, b...) }
