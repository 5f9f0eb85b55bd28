package contender

import (
	"context"
	"errors"
	"fmt"
	"net"
)

func runGoUDP(ctx context.Context, cfg *Config) error {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(cfg.Addr))
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if err := errors.Join(c.SetReadBuffer(datagramBuffer), c.SetWriteBuffer(datagramBuffer)); err != nil {
		return fmt.Errorf("set buffers: %w", err)
	}
	cfg.Ready(cfg.Addr)
	b := make([]byte, mmsgSize)
	var answer [answerSize]byte
	for n := uint64(1); ; n++ {
		size, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		reply := b[:size]
		if cfg.Raw == Sink {
			if reply = SinkAnswer(&answer, b[:size], n); reply == nil {
				continue
			}
		}
		if _, err := c.WriteToUDPAddrPort(reply, from); err != nil && ctx.Err() == nil {
			return err
		}
		cfg.Stats.Requests.Store(n)
	}
}
