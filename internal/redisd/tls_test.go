package redisd

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/redis/go-redis/v9"

	"github.com/pastenet/paste/internal/tlsring/tlstest"
)

// TestTLS uses the server over TLS, as Go programs and as redis-cli do: pipelines, values
// that are sent from their frames, waits, and a client that speaks plainly.
func TestTLS(t *testing.T) {
	l := open(t, 64<<20, 1, Config{Encrypted: true})
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := redis.NewClient(&redis.Options{Addr: l.addr, TLSConfig: tlstest.Client()})
	defer c.Close()
	large := strings.Repeat("0123456789abcdef", 20000)
	qt.Assert(t, qt.IsNil(c.Set(ctx, "large", large, 0).Err()))
	p := c.Pipeline()
	for range 500 {
		p.Incr(ctx, "n")
		p.Set(ctx, "v", large[:1024], 0)
	}
	got := p.Get(ctx, "large")
	_, err := p.Exec(ctx)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(got.Val() == large))
	n, err := c.Get(ctx, "n").Int()
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(n, 500))

	entry := make(chan []redis.XStream, 1)
	go func() {
		s, _ := c.XRead(ctx, &redis.XReadArgs{Streams: []string{"s", "0"}, Block: time.Minute}).Result()
		entry <- s
	}()
	waitBlocked(t, l, 1)
	qt.Assert(t, qt.IsNil(c.XAdd(ctx, &redis.XAddArgs{Stream: "s", ID: "1-1", Values: []string{"f", "v"}}).Err()))
	qt.Check(t, qt.DeepEquals(<-entry, []redis.XStream{{Stream: "s", Messages: []redis.XMessage{{ID: "1-1", Values: map[string]any{"f": "v"}}}}}))

	cert, _ := tlstest.Files(t)
	qt.Check(t, qt.Equals(run(t, l, "redis-cli", "--tls", "--cacert", cert, "--sni", tlstest.Name, "get", "n"), "500\n"))

	plain := dial(t, l.addr)
	_, err = plain.Write([]byte(request("PING")))
	qt.Assert(t, qt.IsNil(err))
	_, err = plain.readValue()
	qt.Check(t, qt.IsNotNil(err))
	stranger, err := tls.Dial("tcp", l.addr, &tls.Config{ServerName: tlstest.Name})
	qt.Check(t, qt.IsNotNil(err), qt.Commentf("%v", stranger))
}
