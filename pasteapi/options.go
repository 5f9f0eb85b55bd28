package pasteapi

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/xsk"
)

// Options describe a Port. Pool alone is required.
type Options struct {
	// NIC is the interface to receive from, in the calling thread's network
	// namespace. "" means none: every byte is copied or read.
	NIC string
	// Pool is the memory of all buffers. It must outlive the Port.
	Pool *pmem.Pool
	// Rings is the number of ring pairs, each used by one thread; 0 = 1. NIC
	// queue j belongs to ring j modulo Rings.
	Rings int
	// Slots per ring, a power of two from 64 to 32768; 0 = 1024.
	Slots int
	// RingMemory is where the rings are laid out, for an application that wants them
	// at an address of its own: RingMemorySize bytes, aligned to 64, which are not the
	// Go heap's and stay mapped until Close has returned. nil: the port maps its own.
	RingMemory []byte
	// MaxConns is the most registered connections per ring, up to 1048576; 0 =
	// 16384.
	MaxConns int
	// TxLimit is the most bytes that may wait for one connection's peer before
	// it is given up; 0 = 4 MiB. From a quarter of it on the connection's
	// received segments are held back.
	TxLimit int
	// Receive says which ways in are used.
	Receive ReceiveMode
	// CopyFrom is how many connections must have something for each time that the
	// ring slept, on average, for those that bring little to be copied by the verdict
	// instead of read from their sockets, with ReceiveAuto; 0 = 40, less than 1: each.
	CopyFrom int
	// Send says how replies are sent.
	Send SendMode
	// XDPMode is used when the Port attaches the NIC itself.
	XDPMode bpf.XDPMode
	// BindMode of the AF_XDP sockets on the NIC; Auto takes zero-copy where the
	// driver has it.
	BindMode xsk.BindMode
	// Spin is how long Poll looks at the rings at most before it sleeps, and, with Linux
	// 6.9, for how long a sleep polls the NIC's queue from the ring's own thread (NAPI
	// busy polling). It does so while waits have been shorter than that lately.
	// Negative: it never sleeps (busy polling).
	Spin time.Duration
	// NoTxPoll has Poll leave the TX ring alone (netmap's NR_NO_TX_POLL): it is sent
	// by TxSync alone.
	NoTxPoll bool
	// NAPIPoll is how long each sleep begins with polling the NIC's queue, whether that
	// pays or not: lower latency for a busy CPU. 0: Spin decides. It needs Linux 6.9,
	// and a NIC that is polled (NAPI).
	NAPIPoll time.Duration
	// DurableAck makes the payload of a registered connection durable before the
	// kernel's TCP sees, and so acknowledges, it: every byte that a peer has seen
	// acknowledged is in its frame for good. It costs a flush of each payload and
	// a fence per batch, and covers what is steered, not what is copied. What
	// leads to the frames after a crash is up to the application's structures.
	DurableAck bool
	// Copybreak is the payload in bytes below which a segment is not worth the
	// way through AF_XDP: the kernel receives it as ever, and its payload is
	// copied into a buffer once TCP has accepted it (network drivers call that
	// rx-copybreak). 0 = 256 where the NIC has zero-copy, else 1400, as a frame
	// that the driver copies anyway gains from AF_XDP only if it can be merged
	// with others; negative, or with DurableAck: none. Where a connection's large
	// segments are on their way, its small ones follow them.
	Copybreak int
	// Stages has each ring measure how long the stages of receiving take (StageStats):
	// some readings of the clock per batch, whose cost is taken off.
	Stages bool
	// BPFFS is where `pastectl attach` pinned the NIC; "" = /sys/fs/bpf.
	BPFFS string
	// Logger is told what an operator would want to know: how the NIC was opened,
	// and, at most once a second for each ring, that the pool was empty, the
	// injection device refused packets, or deliveries were lost. nil =
	// slog.Default().
	Logger *slog.Logger
}

// Defaults of Options.Copybreak.
const (
	copybreakZeroCopy = 256
	copybreakCopy     = 1400
)

// copyFrom is the default of Options.CopyFrom. To wake a sleeping ring up the verdict
// has to send its CPU an interrupt, while a socket's own wake-up is a function call, so
// that it takes large batches to pay.
const copyFrom = 40

// maxConns is the upper limit of Options.MaxConns. The kernel allocates the
// tables for all of them when a port is opened.
const maxConns = 1 << 20

func (o *Options) complete() error {
	if o.Pool == nil {
		return errors.New("open port: no pool (Options.Pool)")
	}
	if o.CopyFrom != 0 && o.Receive != ReceiveAuto {
		return fmt.Errorf("open port: CopyFrom says when ReceiveAuto copies, and with %v nobody asks: leave one of them out", o.Receive)
	}
	for _, d := range []struct {
		field *int
		value int
	}{{&o.Rings, 1}, {&o.Slots, 1024}, {&o.MaxConns, 16384}, {&o.TxLimit, 4 << 20}, {&o.CopyFrom, copyFrom}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.Slots < 64 || o.Slots > 32768 || o.Slots&(o.Slots-1) != 0 {
		return fmt.Errorf("open port: %d slots: need a power of two from 64 to 32768", o.Slots)
	}
	if o.Rings < 1 || o.Rings > 64 {
		return fmt.Errorf("open port: %d rings: need 1 to 64", o.Rings)
	}
	if need := RingMemorySize(o.Rings, o.Slots); o.RingMemory != nil && len(o.RingMemory) < need {
		return fmt.Errorf("open port: ring memory of %d bytes: %d rings of %d slots need %d (RingMemorySize)",
			len(o.RingMemory), o.Rings, o.Slots, need)
	}
	if o.MaxConns < 1 || o.MaxConns > maxConns {
		return fmt.Errorf("open port: %d connections: need 1 to %d", o.MaxConns, maxConns)
	}
	if o.Receive < ReceiveAuto || o.Receive > ReceiveCopied {
		return fmt.Errorf("open port: unknown way to receive %v", o.Receive)
	}
	if o.Receive == ReceiveCopied && o.DurableAck {
		return errors.New("open port: DurableAck covers what is steered, and ReceiveCopied steers nothing: leave one of them out")
	}
	if o.Receive == ReceiveCopied && o.Copybreak != 0 {
		return errors.New("open port: Copybreak is about what is steered, and ReceiveCopied steers nothing: leave one of them out")
	}
	if o.Send < SendAuto || o.Send > SendURing {
		return fmt.Errorf("open port: unknown way to send %v", o.Send)
	}
	if err := o.checkNAPIPoll(); err != nil {
		return err
	}
	if o.TxLimit < 1 {
		return fmt.Errorf("open port: limit of %d bytes to send: must be positive", o.TxLimit)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return nil
}
