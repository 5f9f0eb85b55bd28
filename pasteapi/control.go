package pasteapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNICInUse says that another Port has the NIC: one application per NIC and
// network namespace.
var ErrNICInUse = errors.New("interface in use by another application")

// controlPrefix and the NIC's name make the address of the abstract unix
// socket that a Port holds: taken means that the NIC is. The kernel scopes it
// to the network namespace, as it does the NIC's name, and drops it with the
// process.
const controlPrefix = "@paste/"

// controlTimeout bounds how long a peer on the control socket is waited for.
const controlTimeout = 2 * time.Second

// control holds a NIC for one Port and answers questions about it: whoever
// connects, and is root or the owner of this process, receives the JSON of
// status, and the end of the stream.
type control struct {
	l      *net.UnixListener
	status func() Status
	done   chan struct{} // closed when serve has returned

	mu     sync.Mutex
	closed bool
	peer   *net.UnixConn // being answered
}

// claimNIC takes nic in the calling thread's network namespace until Close. The
// error wraps ErrNICInUse, and names the holder, if it is taken. status is
// called from another goroutine, at any time until Close returns; what it
// returns is encoded as JSON.
func claimNIC(nic string, status func() Status) (*control, error) {
	addr := &net.UnixAddr{Name: controlPrefix + nic, Net: "unix"}
	// A holder may die between the two calls, hence more than one attempt.
	for range 3 {
		// The socket is made on this thread, and so in its namespace.
		l, err := net.ListenUnix("unix", addr)
		if err == nil {
			c := &control{l: l, status: status, done: make(chan struct{})}
			go c.serve()
			return c, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("claim interface %s: %w", nic, err)
		}
		holder, err := dialPort(context.Background(), controlPrefix+nic)
		if errors.Is(err, unix.ECONNREFUSED) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("interface %s: %w", nic, ErrNICInUse)
		}
		cred, err := peerCred(holder)
		holder.Close()
		if err != nil {
			return nil, fmt.Errorf("interface %s: %w", nic, ErrNICInUse)
		}
		return nil, fmt.Errorf("interface %s: %w, process %d: stop it first, or use another interface", nic, ErrNICInUse, cred.Pid)
	}
	return nil, fmt.Errorf("interface %s: %w: its holder changes all the time", nic, ErrNICInUse)
}

func (c *control) serve() {
	defer close(c.done)
	for {
		peer, err := c.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors or memory: the claim stands, questions wait.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if c.setPeer(peer) {
			c.answer(peer)
		}
		peer.Close()
	}
}

// setPeer lets Close interrupt an answer. It reports whether to give one.
func (c *control) setPeer(peer *net.UnixConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peer = peer
	return !c.closed
}

func (c *control) answer(peer *net.UnixConn) {
	if !mayAsk(peer) {
		return
	}
	data, err := json.Marshal(c.status())
	if err != nil {
		return
	}
	peer.SetWriteDeadline(time.Now().Add(controlTimeout))
	peer.Write(data) // the peer may be gone: its loss
}

// Close gives the NIC back. It waits for a call of status that is under way.
func (c *control) Close() error {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	peer := c.peer
	c.mu.Unlock()
	if closed {
		<-c.done
		return nil
	}
	err := c.l.Close()
	if peer != nil {
		peer.Close()
	}
	<-c.done
	if err != nil {
		return fmt.Errorf("release interface: %w", err)
	}
	return nil
}

// QueryNIC asks the application that has nic, in the calling thread's network
// namespace, for its Status. The error wraps os.ErrNotExist if there
// is no application, and os.ErrPermission if it does not answer to this user or
// is one that this user must not believe: one of another user who is not root.
// Root is answered by all, and told whose the process is (LivePort.UID): every
// user may take a NIC's name.
func QueryNIC(ctx context.Context, nic string) (Status, error) {
	p, err := queryNIC(ctx, nic)
	return p.Status, err
}

func queryNIC(ctx context.Context, nic string) (LivePort, error) {
	p, err := queryPort(ctx, controlPrefix+nic, "interface "+nic)
	p.NIC = nic
	return p, err
}

// queryPort asks the port that answers at an address; what is for errors.
func queryPort(ctx context.Context, address, what string) (p LivePort, err error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	err = twice(ctx, func() (err error) { p, err = readStatus(ctx, address); return err })
	if err != nil {
		return LivePort{}, fmt.Errorf("%s: query its application: %w", what, err)
	}
	return p, nil
}

func readStatus(ctx context.Context, address string) (p LivePort, err error) {
	conn, cred, err := ask(ctx, address)
	if err != nil {
		return p, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	data, err := io.ReadAll(io.LimitReader(conn, maxStatus))
	if err != nil {
		return p, errors.Join(context.Cause(ctx), err)
	}
	if len(data) == 0 {
		return p, fmt.Errorf("process %d does not answer: %w", cred.Pid, os.ErrPermission)
	}
	p.PID, p.UID = int(cred.Pid), int(cred.Uid)
	if err := json.Unmarshal(data, &p.Status); err != nil {
		return p, fmt.Errorf("process %d: the answer was cut off, or is another version's: %w", cred.Pid, err)
	}
	return p, nil
}

// maxStatus is more than any status takes, bytes: a stranger's is not read without
// end.
const maxStatus = 1 << 20

// LivePort is a Port that some process has open now.
type LivePort struct {
	NIC    string `json:"nic"` // "": none
	PID    int    `json:"pid"`
	UID    int    `json:"uid"`    // who runs it; root sees the ports of all users
	Status Status `json:"status"` // as the process reports it
}
