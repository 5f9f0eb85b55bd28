package netmap_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/netmap"
	"golang.org/x/sys/unix"
)

// forward moves what one ring received to another by exchanging buffers.
func forward(rx, tx *netmap.Ring) (n int) {
	for ; !rx.Empty() && !tx.Empty(); n++ {
		rs, ts := rx.Slot(rx.Head), tx.Slot(tx.Head)
		rs.BufIdx, ts.BufIdx = ts.BufIdx, rs.BufIdx
		ts.Len, ts.Flags = rs.Len, netmap.NS_BUF_CHANGED|rs.Flags&netmap.NS_MOREFRAG
		rs.Flags = netmap.NS_BUF_CHANGED
		rx.Head, tx.Head = rx.Next(rx.Head), tx.Next(tx.Head)
	}
	rx.Cur, tx.Cur = rx.Head, tx.Head
	return n
}

// startBridge forwards between a NIC and its host's rings, both ways, as netmap's
// bridge program does with one name. stop ends it.
func startBridge(t *testing.T, ns *netlab.Netns, dev string) (stop func()) {
	t.Helper()
	nic := openIn(t, ns, "netmap:"+dev, netmap.Options{})
	host := openIn(t, ns, "netmap:"+dev+"^", netmap.Options{})
	var wg sync.WaitGroup
	end := make(chan struct{})
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case <-end:
				return
			default:
			}
			fds := []unix.PollFd{{Fd: int32(nic.Fd()), Events: unix.POLLIN}, {Fd: int32(host.Fd()), Events: unix.POLLIN}}
			_, _ = unix.Poll(fds, 50)
			for _, p := range []*netmap.Port{nic, host} {
				if err := p.RxSync(); err != nil {
					t.Error(err)
					return
				}
			}
			for i := range nic.NumRX() {
				forward(nic.RX(i), host.TX(0))
			}
			forward(host.RX(0), nic.TX(0))
			for _, p := range []*netmap.Port{nic, host} {
				if err := p.TxSync(); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	return sync.OnceFunc(func() { close(end); wg.Wait() })
}

// TestHostRings has TCP of the kernel's work through a bridge between a NIC and its
// host's rings, both ways and byte by byte; without the bridge nothing gets through,
// and afterwards everything does.
func TestHostRings(t *testing.T) {
	l := netlabtest.New(t, netlab.Config{Prefix: "nm", NoTxChecksum: true})
	testHostRings(t, l)
}

// TestHostRingsPartialChecksum is the same with the checksums that a veth's other end
// leaves out.
func TestHostRingsPartialChecksum(t *testing.T) {
	l := netlabtest.New(t, netlab.Config{Prefix: "nm"})
	testHostRings(t, l)
}

func testHostRings(t *testing.T, l *netlab.Lab) {
	body := make([]byte, 3<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(body)
	var lis net.Listener
	var err error
	netlabtest.In(t, l.Server, func() { lis, err = net.Listen("tcp", l.ServerIP4.String()+":0") })
	qt.Assert(t, qt.IsNil(err))
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Sum", fmt.Sprintf("%x", sha256.Sum256(got)))
		_, _ = w.Write(body)
	})}
	go srv.Serve(lis)
	defer srv.Close()
	url := "http://" + lis.Addr().String() + "/"

	curl := func(timeout string) ([]byte, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute*5)
		defer cancel()
		var out bytes.Buffer
		cmd := l.ClientCommand(ctx, "curl", "-s", "--max-time", timeout, "--data-binary", "@-", "-o", "-", url)
		cmd.Stdin, cmd.Stdout = bytes.NewReader(body), &out
		err := cmd.Run()
		return out.Bytes(), err
	}
	stop := startBridge(t, l.Server, l.ServerDev)
	for range 3 {
		got, err := curl("240")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(bytes.Equal(got, body)), qt.Commentf("%d bytes of %d", len(got), len(body)))
	}
	stop()
	_, err = curl("1")
	qt.Check(t, qt.IsNotNil(err), qt.Commentf("nobody forwards, and yet it works"))
}
