package tests

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/pmem"
	"github.com/vishvananda/netlink"
)

// refused expects one sentence on standard error that contains all words, and
// a non-zero exit.
func refused(t *testing.T, stderr string, err error, words ...string) {
	t.Helper()
	qt.Assert(t, qt.IsNotNil(err))
	qt.Check(t, qt.Equals(strings.Count(strings.TrimSuffix(stderr, "\n"), "\n"), 0), qt.Commentf("%s", stderr))
	qt.Check(t, qt.IsTrue(strings.HasPrefix(stderr, "pastectl: ")), qt.Commentf("%s", stderr))
	for _, word := range words {
		qt.Check(t, qt.StringContains(strings.ToLower(stderr), strings.ToLower(word)))
	}
	t.Log(strings.TrimSpace(stderr))
}

func TestBadNIC(t *testing.T) {
	l := newLab(t, netlab.Config{})
	listen, pool := l.ServerIP4.String()+":8080", poolFile(t)
	for _, args := range [][]string{
		{"attach", "nosuch0"},
		{"detach", "nosuch0"},
		{"serve", "http", "--nic", "nosuch0", "--listen", listen, "--pool", pool, "--pool-size", "64MiB"},
	} {
		_, stderr, err := ctl(l, args...)
		refused(t, stderr, err, "nosuch0", "no such interface")
	}
	_, stderr, err := ctl(l, "detach", l.ServerDev)
	refused(t, stderr, err, l.ServerDev, "not attached")
}

// Another XDP program has the NIC.
func TestNICOfAnother(t *testing.T) {
	l := newLab(t, netlab.Config{})
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "te_other", Type: ebpf.XDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // XDP_PASS
	})
	qt.Assert(t, qt.IsNil(err))
	defer prog.Close()
	qt.Assert(t, qt.IsNil(l.InServer(func() error {
		nic, err := netlink.LinkByName(l.ServerDev)
		if err != nil {
			return err
		}
		x, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: nic.Attrs().Index})
		if err == nil {
			t.Cleanup(func() { x.Close() })
		}
		return err
	})))
	for _, args := range [][]string{
		{"attach", l.ServerDev},
		{"serve", "http", "--nic", l.ServerDev, "--receive", "steered", "--listen", l.ServerIP4.String() + ":8080", "--pool", poolFile(t), "--pool-size", "64MiB"},
	} {
		_, stderr, err := ctl(l, args...)
		refused(t, stderr, err, l.ServerDev, "already attached by another")
	}
}

func TestNoPrivilege(t *testing.T) {
	l := newLab(t, netlab.Config{})
	for _, args := range [][]string{
		{"attach", l.ServerDev},
		{"serve", "http", "--nic", l.ServerDev, "--listen", l.ServerIP4.String() + ":8080", "--pool", poolFile(t), "--pool-size", "64MiB"},
	} {
		var stderr bytes.Buffer
		cmd := l.ServerCommand(context.Background(), "setpriv", append([]string{
			"--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", pastectl}, args...)...)
		cmd.Stderr = &stderr
		err := cmd.Run()
		refused(t, stderr.String(), err, "cap_")
	}
}

func TestMTUTooLarge(t *testing.T) {
	l := newLab(t, netlab.Config{MTU: 9000})
	_, stderr, err := ctl(l, "attach", l.ServerDev)
	refused(t, stderr, err, l.ServerDev, "mtu", "9000")
	_, stderr, err = ctl(l, "serve", "http", "--nic", l.ServerDev, "--receive", "steered", "--listen", l.ServerIP4.String()+":8080", "--pool", poolFile(t), "--pool-size", "64MiB")
	refused(t, stderr, err, l.ServerDev, "mtu", "9000")
}

func TestPortInUse(t *testing.T) {
	l := newLab(t, netlab.Config{})
	addr := l.ServerIP4.String() + ":8080"
	ln, err := l.Server.Listen(t.Context(), "tcp", addr)
	qt.Assert(t, qt.IsNil(err))
	defer ln.Close()
	_, stderr, err := ctl(l, "serve", "http", "--nic", l.ServerDev, "--listen", addr, "--pool", poolFile(t), "--pool-size", "64MiB")
	refused(t, stderr, err, addr, "address already in use")
}

// Files that are no pool, or not a good one, are refused by whoever opens
// them, and are not changed.
func TestBadPool(t *testing.T) {
	l := newLab(t, netlab.Config{})
	good := poolFile(t)
	p, err := pmem.Create(good, pmem.Options{Size: 1 << 20})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Close()))
	image, err := os.ReadFile(good)
	qt.Assert(t, qt.IsNil(err))
	edited := func(edit func(b []byte) []byte) []byte { return edit(append([]byte(nil), image...)) }
	// Both copies of the superblock (package pmem, "On-disk format").
	both := func(edit func(super []byte)) func(b []byte) []byte {
		return func(b []byte) []byte {
			edit(b[:128])
			edit(b[2048:][:128])
			return b
		}
	}
	for _, c := range []struct {
		name    string
		content []byte
		words   []string
	}{
		{"zero bytes", nil, []string{"not a pool", "0 bytes"}},
		{"random bytes", random(1<<20, 1), []string{"not a pool"}},
		{"few bytes", []byte("PASTE"), []string{"not a pool"}},
		{"another version", edited(both(func(s []byte) {
			binary.LittleEndian.PutUint32(s[8:], 99)
			binary.LittleEndian.PutUint32(s[124:], crc32.Checksum(s[:124], crc32.MakeTable(crc32.Castagnoli)))
		})), []string{"version 99"}},
		{"damaged", edited(both(func(s []byte) { s[20] ^= 1 })), []string{"damaged"}},
		{"truncated", image[:1<<19], []string{"truncated"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := poolFile(t)
			qt.Assert(t, qt.IsNil(os.WriteFile(path, c.content, 0o600)))
			for _, args := range [][]string{
				{"serve", "http", "--nic", l.ServerDev, "--listen", l.ServerIP4.String() + ":8080", "--pool", path},
				{"pool", "info", path},
				{"pool", "log", path},
			} {
				_, stderr, err := ctl(l, args...)
				refused(t, stderr, err, append(c.words, path)...)
			}
			after, err := os.ReadFile(path)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(string(after) == string(c.content), true), qt.Commentf("the file was changed"))
		})
	}
}

func TestBadCommandLine(t *testing.T) {
	l := newLab(t, netlab.Config{})
	for _, args := range [][]string{
		{"serve", "http"},
		{"serve", "http", "--listen", "nonsense", "--pool", poolFile(t), "--pool-size", "64MiB"},
		{"serve", "http", "--listen", "10.1.2.3:80", "--pool", poolFile(t), "--pool-size", "64MiB"},
		{"serve", "http", "--listen", "127.0.0.1:99999", "--pool", poolFile(t), "--pool-size", "64MiB"},
		{"serve", "http", "--listen", "127.0.0.1:0", "--pool", poolFile(t) + "2", "--pool-size", "1"},
		{"serve", "http", "--listen", "127.0.0.1:0", "--pool", poolFile(t), "--persist", "maybe"},
		{"pool", "log", "/nonexistent/pool"},
		{"frobnicate"},
	} {
		_, stderr, err := ctl(l, args...)
		refused(t, stderr, err)
	}
}
