package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/pastenet/paste/internal/tracefile"
	"github.com/pastenet/paste/pasteapi"
)

// traceFlags are the flags of trace as they were given.
type traceFlags struct {
	nic, peer, conn, file string
	count                 int
	asJSON                bool
	o                     pasteapi.TraceOptions
}

func newTraceCmd(e env) *cobra.Command {
	var f traceFlags
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Watch what goes through the rings of running servers",
		Long: `Show what the servers of this network namespace are given by their rings, and what
their sockets take: what tcpdump on the NIC cannot see, because payload is steered
past it, or cannot tell, because it sees no tickets and no verdicts.

  steered    payload is in place, by the ticket that is named
  copied     the verdict has copied it
  read       it was read from the socket
  reclaimed  it was steered, and TCP did not take it
  closed     the end of a connection
  sent       its socket has taken it

A file (-w) is a capture file for wireshark and tshark, with an interface for each
way and a comment on each packet. The headers of the packets are made up: sequence
numbers count from the beginning of the trace.

Servers do not wait for this command: what it is too slow for is lost, and counted.
It is for root and for the user whose server it is. It ends by Ctrl-C, or with the
servers.`,
		Example: `  pastectl trace
  pastectl trace --port 8080 -w /tmp/x.pcapng
  pastectl trace --peer 10.0.0.0/24 --snaplen 65536 -w - | tshark -r - -T fields -e frame.comment
  nsenter --net=/run/netns/NAME pastectl trace --conn 10.0.0.2:41234`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.complete(cmd); err != nil {
				return newUsageError(cmd, err)
			}
			return f.run(cmd, e)
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.file, "write", "w", "", "write a capture file, \"-\" for standard output, in place of lines")
	fl.StringVar(&f.nic, "nic", "", "the server that has this interface alone")
	fl.IntVar(&f.o.PID, "pid", 0, "this process alone")
	fl.Uint16Var(&f.o.Port, "port", 0, "connections and datagrams with this port at either end alone")
	fl.StringVar(&f.peer, "peer", "", "peers with this address, or in this network, alone")
	fl.StringVar(&f.conn, "conn", "", "the connection of this peer (ADDRESS:PORT) alone")
	fl.IntVar(&f.o.Snap, "snaplen", 256, "bytes of payload that are kept of each packet, up to 65536")
	fl.IntVar(&f.count, "count", 0, "end after so many packets")
	fl.BoolVar(&f.asJSON, "json", false, "print a JSON document for each packet, in place of lines")
	return cmd
}

// complete reads the flags that are text, and refuses what cannot be.
func (f *traceFlags) complete(cmd *cobra.Command) (err error) {
	given := func(flag string) bool { return cmd.Flag(flag).Changed }
	if given("peer") {
		if f.o.Peer, err = netip.ParsePrefix(f.peer); err != nil {
			addr, aerr := netip.ParseAddr(f.peer)
			if aerr != nil {
				return fmt.Errorf("--peer %q: want an address such as 10.0.0.2, or a network such as 10.0.0.0/24", f.peer)
			}
			f.o.Peer = netip.PrefixFrom(addr, addr.BitLen())
		}
	}
	if given("conn") {
		if f.o.Conn, err = netip.ParseAddrPort(f.conn); err != nil {
			return fmt.Errorf("--conn %q: want the peer's address and port, such as 10.0.0.2:41234", f.conn)
		}
	}
	switch {
	case f.o.Snap < 0 || f.o.Snap > 65536:
		return errors.New("--snaplen must be 0 to 65536")
	case given("count") && f.count < 1:
		return errors.New("--count must be positive")
	case given("pid") && f.o.PID < 1:
		return errors.New("--pid must be positive")
	case given("port") && f.o.Port == 0:
		return errors.New("--port must be 1 to 65535")
	case given("pid") && given("nic"):
		return errors.New("--pid and --nic both say which server: leave one of them out")
	case f.asJSON && given("write"):
		return errors.New("--write writes a capture file, so there is nothing for --json to say")
	}
	return nil
}

// errEnough ends a trace after --count packets.
var errEnough = errors.New("enough")

func (f *traceFlags) run(cmd *cobra.Command, e env) (err error) {
	if f.nic != "" {
		st, err := pasteapi.QueryNIC(cmd.Context(), f.nic)
		if err != nil {
			return fmt.Errorf("trace: %w", err)
		}
		f.o.PID = st.PID
	}
	write, end, err := f.output(e)
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	events := 0
	started := func(skipped error) {
		if skipped != nil {
			fmt.Fprintln(e.stderr, "warning: not traced:", sentence(skipped))
		}
		fmt.Fprintln(e.stderr, "tracing; Ctrl-C ends it")
	}
	lost, err := pasteapi.Trace(cmd.Context(), f.o, started, func(ev pasteapi.TraceEvent) error {
		if err := write(ev); err != nil {
			return err
		}
		if events++; events == f.count {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err = errors.Join(err, end()); err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "%d events, %d lost\n", events, lost)
	return nil
}

// output says where events go; end writes what is left.
func (f *traceFlags) output(e env) (write func(pasteapi.TraceEvent) error, end func() error, err error) {
	if f.file == "" {
		lines := json.NewEncoder(e.stdout)
		return func(ev pasteapi.TraceEvent) (err error) {
			if f.asJSON {
				return lines.Encode(ev)
			}
			_, err = fmt.Fprintln(e.stdout, tracefile.Line(ev))
			return err
		}, func() error { return nil }, nil
	}
	to := e.stdout
	shut := func() error { return nil }
	if f.file != "-" {
		file, err := os.OpenFile(f.file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, nil, err
		}
		to, shut = file, file.Close
	}
	w, err := tracefile.NewWriter(to, f.o.Snap)
	if err != nil {
		return nil, nil, errors.Join(err, shut())
	}
	end = func() error { return errors.Join(w.Flush(), shut()) }
	if f.file != "-" {
		return w.Write, end, nil
	}
	// Somebody may be looking at it.
	return func(ev pasteapi.TraceEvent) error { return errors.Join(w.Write(ev), w.Flush()) }, end, nil
}
