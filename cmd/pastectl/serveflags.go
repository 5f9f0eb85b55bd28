package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/internal/tlsring"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// serveSpin is how long an idle server looks at its rings before it sleeps:
// about what going to sleep and being woken cost, on a virtual machine.
const serveSpin = 50 * time.Microsecond

// serveOptions are the flags of the servers. Most are fields of the server's
// configuration already; complete turns the others into fields.
type serveOptions struct {
	cfg       serve.Config
	bodyLimit sizeFlag
	bodyRate  sizeFlag
	poolSize  sizeFlag
	frameSize int
	cpu       int
	tlsCert   string
	tlsKey    string
	busyPoll  bool
	json      bool
}

func newServeOptions(bodyLimit sizeFlag) *serveOptions {
	return &serveOptions{poolSize: serve.DefaultPoolSize, bodyLimit: bodyLimit, bodyRate: httpd.DefaultBodyRate}
}

// define adds the flags of a server that speaks HTTP to a command.
func (o *serveOptions) define(cmd *cobra.Command) {
	f, http := cmd.Flags(), &o.cfg.HTTP
	f.IntVar(&http.MaxConns, "max-connections", httpd.DefaultMaxConns, "connections per ring, beyond which clients get 503")
	f.Var(&o.bodyLimit, "body-limit", "size beyond which a body gets 413; if it is not given no more than the pool allows for")
	f.Var(&o.bodyRate, "body-rate", "bytes of a body that must come each second, on average, once --stall-timeout has passed")
	f.DurationVar(&http.HeaderTimeout, "header-timeout", httpd.DefaultHeaderTimeout, "how long a request's header may take; 0: for ever")
	f.DurationVar(&http.IdleTimeout, "idle-timeout", httpd.DefaultIdleTimeout, "how long a connection may wait for its next request; 0: for ever")
	o.defineCommon(cmd)
}

// defineCommon adds the flags that all servers have.
func (o *serveOptions) defineCommon(cmd *cobra.Command) {
	f, http, port := cmd.Flags(), &o.cfg.HTTP, &o.cfg.Port
	f.StringVar(&port.NIC, "nic", "", "interface to receive from; without it nothing is steered")
	f.StringVar(&http.Addr, "listen", "", "address and port to listen on: 10.0.0.1:8080, [fd00::1]:8080; :8080 or [::]:8080 for all of both kinds, 0.0.0.0:8080 for all of IPv4")
	f.StringVar(&o.cfg.Pool.Path, "pool", "", "pool file on tmpfs, hugetlbfs, DAX or an ordinary disk, or a device-DAX device")
	f.StringVar(&o.tlsCert, "tls-cert", "", "certificate (PEM, with those that it was signed by behind it), to speak TLS; read again when it changes")
	f.StringVar(&o.tlsKey, "tls-key", "", "private key (PEM) of --tls-cert")
	f.Var(&o.poolSize, "pool-size", "size of the pool if it has to be created, of a device all of it by default; one that exists must have it if it is given")
	f.IntVar(&o.frameSize, "frame-size", pmem.DefaultFrameSize, "bytes per packet buffer if the pool has to be created, 2048 or 4096; one that exists must have them if this is given")
	f.BoolVar(&o.cfg.Pool.AllowForeign, "allow-foreign-pool", false, "use a pool file that another user owns or may write to, and so can end or deceive the server")
	f.DurationVar(&http.StallTimeout, "stall-timeout", httpd.DefaultStallTimeout, "how long a client may take to send or to read 4 KiB; 0: for ever")
	f.DurationVar(&http.DrainTimeout, "drain-timeout", httpd.DefaultDrainTimeout, "how long requests that have begun may take after a signal to end; 0: not at all")
	f.BoolVar(&port.DurableAck, "durable-ack", false, "make payload durable before TCP acknowledges it")
	f.IntVar(&port.Copybreak, "copybreak", 0, "let segments with less payload than this many bytes pass AF_XDP, and copy them: 0 = 256 if the NIC has zero-copy, else 1400; negative: none pass")
	f.DurationVar(&port.Spin, "spin", serveSpin, "how long an idle server looks at its rings before it sleeps")
	f.DurationVar(&port.NAPIPoll, "napi-poll", 0, "how long a server that goes to sleep polls the interface's queue by itself, with interrupts off; 0: not at all")
	f.BoolVar(&o.busyPoll, "busy-poll", false, "never sleep: lower latency for a whole CPU")
	f.IntVar(&port.Rings, "rings", 1, "ring pairs, each with a thread")
	f.IntVar(&o.cpu, "cpu", -1, "CPU of the first ring's thread, the next ones on the following CPUs; -1: not pinned")
	f.Var(receiveFlag(&port.Receive), "receive", "ways in: auto steers where the driver has zero-copy or the interface is attached, else it copies small messages and reads large ones")
	f.IntVar(&port.CopyFrom, "copy-from", 0, "with --receive auto, from how many connections on that have something at each wake-up, on average, small messages are copied; 0 = 40, negative: always")
	f.Var(sendFlag(&port.Send), "send", "how replies are sent: a system call for each connection, one for many by io_uring, or what costs less on this machine")
	f.Var(xdpModeFlag(&port.XDPMode), "xdp-mode", "how to attach the interface")
	f.BoolVar(&o.json, "json", false, "print JSON, one object per line")
}

// complete verifies the flags of a server that speaks HTTP and makes a
// configuration of them.
func (o *serveOptions) complete(cmd *cobra.Command, e env) error {
	if err := o.completeCommon(cmd, e); err != nil {
		return err
	}
	if cmd.Flag("body-limit").Changed {
		o.cfg.HTTP.BodyLimit = int64(o.bodyLimit)
	}
	o.cfg.HTTP.BodyRate = int64(o.bodyRate)
	return nil
}

// completeCommon does what all servers need.
func (o *serveOptions) completeCommon(cmd *cobra.Command, e env) error {
	http, port := &o.cfg.HTTP, &o.cfg.Port
	for _, name := range []string{"listen", "pool"} {
		if f := cmd.Flag(name); f.Value.String() == "" {
			return newUsageError(cmd, fmt.Errorf("missing --%s", name))
		}
	}
	if err := o.check(cmd); err != nil {
		return newUsageError(cmd, err)
	}
	for _, limit := range o.limits() {
		if *limit == 0 {
			*limit = -1 // where 0 means the default
		}
	}
	if o.cpu >= 0 {
		for i := range port.Rings {
			http.CPUs = append(http.CPUs, o.cpu+i)
		}
	}
	if o.busyPoll {
		port.Spin = -1
	}
	if cmd.Flag("pool-size").Changed {
		o.cfg.Pool.Size = int64(o.poolSize)
	}
	if cmd.Flag("frame-size").Changed {
		o.cfg.Pool.FrameSize = o.frameSize
	}
	http.Rings = port.Rings
	http.Logger = slog.New(slog.NewTextHandler(e.stderr, nil))
	if o.tlsCert != "" {
		var err error
		if o.cfg.TLS, err = tlsring.Load(o.tlsCert, o.tlsKey, http.Logger); err != nil {
			return fmt.Errorf("serve %s: %w", cmd.Name(), err)
		}
	}
	port.MaxConns, port.BPFFS, port.Logger = http.MaxConns, bpffsPath(), http.Logger
	o.cfg.Report = e.reporter(o.json)
	return nil
}

func (o *serveOptions) limits() []*time.Duration {
	http := &o.cfg.HTTP
	return []*time.Duration{&http.HeaderTimeout, &http.IdleTimeout, &http.StallTimeout, &http.DrainTimeout}
}

// check refuses values that cannot be, and flags that would be ignored because
// of another one.
func (o *serveOptions) check(cmd *cobra.Command) error {
	http, port := &o.cfg.HTTP, &o.cfg.Port
	given := func(flag string) bool { return cmd.Flag(flag).Changed }
	if http.MaxConns < 1 || port.Rings < 1 {
		return errors.New("--max-connections and --rings must be positive")
	}
	if port.Spin < 0 {
		return errors.New("--spin must not be negative; --busy-poll never sleeps")
	}
	for _, limit := range o.limits() {
		if *limit < 0 {
			return errors.New("--header-timeout, --idle-timeout, --stall-timeout and --drain-timeout must not be negative")
		}
	}
	switch {
	case o.busyPoll && given("spin"):
		return errors.New("--busy-poll never sleeps, so there is nothing for --spin to say")
	case given("copy-from") && port.Receive != pasteapi.ReceiveAuto:
		return errors.New("--copy-from says when --receive auto copies: leave one of them out")
	case o.busyPoll && given("napi-poll"):
		return errors.New("--busy-poll never sleeps, so there is nothing for --napi-poll to say")
	case given("napi-poll") && (port.NAPIPoll < time.Microsecond || port.NAPIPoll > time.Second):
		return errors.New("--napi-poll must be 1µs to 1s")
	case port.DurableAck && port.Copybreak > 0:
		return errors.New("--durable-ack lets no segment pass AF_XDP, so there is nothing for --copybreak to say")
	case port.Copybreak > maxPayload:
		return fmt.Errorf("--copybreak %d: no segment has more than %d bytes of payload; leave --nic out to have all of it copied", port.Copybreak, maxPayload)
	case given("tls-cert") != given("tls-key") || given("tls-cert") && (o.tlsCert == "" || o.tlsKey == ""):
		return errors.New("--tls-cert and --tls-key belong together: give a file for each")
	case port.NIC == "" && (port.DurableAck || given("napi-poll") || given("xdp-mode") || given("copybreak")):
		return errors.New("--xdp-mode, --copybreak, --napi-poll and --durable-ack are about an interface: give --nic too")
	case given("max-connections"):
		return enoughFiles(port.Rings * http.MaxConns)
	}
	return nil
}

// maxPayload is the most payload of a packet, bytes.
const maxPayload = 65535 - 40

// enoughFiles refuses more connections than the process may have descriptors.
func enoughFiles(conns int) error {
	const others = 64 // listeners, rings, the pool
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil // accept(2) will tell
	}
	if uint64(conns+others) > limit.Max {
		return fmt.Errorf("%d connections need %d file descriptors, and this process may have %d; raise the limit (`ulimit -Hn`, LimitNOFILE of a service) or lower --max-connections",
			conns, conns+others, limit.Max)
	}
	return nil
}
