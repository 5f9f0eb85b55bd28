package bench

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/pastenet/paste/internal/loadgen"
	"golang.org/x/sys/unix"
)

// Fill waits until a key-value server listens and stores all keys once. load completes
// what the generator is told, as in [Custom].
func (c *Config) Fill(ctx context.Context, addr netip.AddrPort, load func(*loadgen.Config)) error {
	if err := await(ctx, addr); err != nil {
		return err
	}
	l := loadgen.Config{Addr: addr, Connections: min(c.Connections, 64), Size: c.Size, Duration: 5 * time.Minute, CPU: c.ClientCPU}
	load(&l)
	l.KV.Preload = true
	res, err := loadgen.Run(ctx, l)
	if err == nil && (res.Non2xx > 0 || res.Acked < uint64(l.KV.Keys)) {
		err = fmt.Errorf("%d keys stored, %d refused", res.Acked, res.Non2xx)
	}
	if err != nil {
		return fmt.Errorf("fill the store: %w", err)
	}
	return nil
}

// await waits until somebody listens.
func await(ctx context.Context, addr netip.AddrPort) error {
	for range 200 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()})
		unix.Close(fd)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("nobody listens on %s", addr)
}
