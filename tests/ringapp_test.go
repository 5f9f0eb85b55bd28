package tests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// newPool is a pool in memory of which every frame must be back at the end.
func newPool(t testing.TB, size int64) *pmem.Pool {
	t.Helper()
	p, err := pmem.NewMemory("paste-tests", pmem.Options{Size: size})
	qt.Assert(t, qt.IsNil(err))
	free := p.Free()
	t.Cleanup(func() {
		qt.Check(t, qt.Equals(p.Free(), free), qt.Commentf("frames leaked"))
		qt.Check(t, qt.Equals(p.Misuses(), 0))
		qt.Check(t, qt.IsNil(p.Close()))
	})
	return p
}

// startEcho runs the usual echo application on port 7000 of the lab's NIC.
func startEcho(t testing.TB, l *netlab.Lab) *ringapp.App {
	t.Helper()
	return startEchoCopybreak(t, l, 0)
}

func startEchoCopybreak(t testing.TB, l *netlab.Lab, copybreak int) *ringapp.App {
	t.Helper()
	return new(ringapp.App).Start(t, l, pasteapi.Options{NIC: l.ServerDev, Receive: pasteapi.ReceiveSteered, Pool: newPool(t, 64<<20), Copybreak: copybreak},
		net.JoinHostPort(l.ServerIP4.String(), "7000"))
}

// roundTrip sends data in pieces, ends the stream, and expects all of it back.
func roundTrip(c *net.TCPConn, data []byte, piece int) error {
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		for rest := data; len(rest) > 0; {
			n := min(piece, len(rest))
			if _, err := c.Write(rest[:n]); err != nil {
				sent <- fmt.Errorf("send: %w", err)
				return
			}
			rest = rest[n:]
		}
		sent <- c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err = errors.Join(err, <-sent); err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("%d bytes came back of %d, and they differ", len(got), len(data))
	}
	return nil
}

// tripFrom dials and does a round trip.
func tripFrom(l *netlab.Lab, addr string, data []byte, piece int) error {
	c, err := tryDial(l, addr)
	if err != nil {
		return err
	}
	return roundTrip(c, data, piece)
}
