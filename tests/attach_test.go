package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// usePrivateBPFFS lets pastectl pin in a bpffs of the test's own, because
// others may use the machine's at the same time.
func usePrivateBPFFS(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("PASTE_BPFFS", dir)
	t.Cleanup(func() {
		// The last detach has unmounted it.
		qt.Check(t, qt.ErrorIs(unix.Unmount(dir, 0), unix.EINVAL))
	})
	return dir
}

// traces are the places where attaching shows.
type traces struct {
	Link   string   // ip link in the server's namespace
	Mounts []string // at bpffs
	Pins   []string // below it
}

var linkNetns = regexp.MustCompile(` link-netns(id)? \S+`)

func tracesOf(t *testing.T, l *netlab.Lab, bpffs string) traces {
	t.Helper()
	// Statistics change, indexes of other devices need not. That a new pair has a
	// carrier the kernel tells up to a second late.
	var out []byte
	waitFor(t, func() (told bool) {
		var err error
		out, err = l.ServerCommand(context.Background(), "ip", "-o", "link", "show").Output()
		qt.Assert(t, qt.IsNil(err))
		return !bytes.Contains(out, []byte("NO-CARRIER"))
	})
	// How ip names the other end's namespace depends on what else is mounted
	// over /run/netns.
	tr := traces{Link: linkNetns.ReplaceAllString(string(out), "")}
	mounts, err := os.ReadFile("/proc/self/mounts")
	qt.Assert(t, qt.IsNil(err))
	for line := range strings.Lines(string(mounts)) {
		if strings.Fields(line)[1] == bpffs {
			tr.Mounts = append(tr.Mounts, line)
		}
	}
	err = filepath.Walk(bpffs, func(path string, _ os.FileInfo, err error) error {
		tr.Pins = append(tr.Pins, path)
		return err
	})
	qt.Assert(t, qt.IsNil(err))
	return tr
}

// bpfIDs lists the ids of all programs or links whose description mentions a word.
func bpfIDs(t *testing.T, kind, word string) []int {
	t.Helper()
	cmd := newLocal("bpftool", "-j", kind, "show")
	var out bytes.Buffer
	cmd.Stdout = &out
	qt.Assert(t, qt.IsNil(cmd.Run()))
	var all []map[string]any
	qt.Assert(t, qt.IsNil(json.Unmarshal(out.Bytes(), &all)))
	var ids []int
	for _, o := range all {
		text, err := json.Marshal(o)
		qt.Assert(t, qt.IsNil(err))
		if id, ok := o["id"].(float64); ok && strings.Contains(string(text), word) {
			ids = append(ids, int(id))
		}
	}
	return ids
}

// attach, use, detach: a file arrives byte for byte, and afterwards the
// machine is as it was.
func TestAttachDetach(t *testing.T) {
	l := newLab(t, netlab.Config{})
	bpffs := usePrivateBPFFS(t)
	before := tracesOf(t, l, bpffs)
	progs := bpfIDs(t, "prog", "paste_steer")

	stdout, stderr, err := ctl(l, "attach", l.ServerDev)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
	qt.Check(t, qt.StringContains(stdout, "attached in native mode"))
	during := tracesOf(t, l, bpffs)
	qt.Check(t, qt.StringContains(during.Link, "xdp"))
	qt.Check(t, qt.IsTrue(len(during.Pins) > len(before.Pins)), qt.Commentf("%v, %v", len(during.Pins), len(before.Pins)))
	var ours []int
	for _, id := range bpfIDs(t, "prog", "paste_steer") {
		if !slices.Contains(progs, id) {
			ours = append(ours, id)
		}
	}
	qt.Assert(t, qt.IsTrue(len(ours) > 0), qt.Commentf("%v", len(ours)))

	// Attaching again changes nothing; serving uses what is attached.
	_, stderr, err = ctl(l, "attach", l.ServerDev)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
	qt.Check(t, qt.DeepEquals(tracesOf(t, l, bpffs), during))
	s := serve(t, l, poolFile(t))
	qt.Check(t, qt.Equals(s.ready.Port.Attached, pasteapi.AttachedPinned))
	data := random(5<<20, 1)
	file := filepath.Join(t.TempDir(), "upload")
	qt.Assert(t, qt.IsNil(os.WriteFile(file, data, 0o600)))
	out, err := l.ClientCommand(context.Background(), "curl", "-sS", "--fail", "-T", file, s.url).CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	s.Kill()
	qt.Check(t, qt.DeepEquals(tracesOf(t, l, bpffs).Pins, during.Pins))
	qt.Check(t, qt.Equals(sum(record(t, s.pool, 1)), sum(data)))

	stdout, stderr, err = ctl(l, "detach", l.ServerDev)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
	qt.Check(t, qt.StringContains(stdout, "detached"))
	qt.Check(t, qt.DeepEquals(tracesOf(t, l, bpffs), before))
	waitFor(t, func() bool { // programs are freed by a work queue
		left := bpfIDs(t, "prog", "paste_steer")
		return !slices.ContainsFunc(ours, func(id int) bool { return slices.Contains(left, id) })
	})
}

// Without attach the NIC is attached for the server's lifetime, however that
// ends.
func TestServeAttachesForItsLifetime(t *testing.T) {
	l := newLab(t, netlab.Config{})
	bpffs := usePrivateBPFFS(t)
	before := tracesOf(t, l, bpffs)
	for _, orderly := range []bool{true, false} {
		s := serve(t, l, poolFile(t))
		qt.Check(t, qt.StringContains(tracesOf(t, l, bpffs).Link, "xdp"))
		qt.Assert(t, qt.IsNil(get(newClient(t, l), s.url)))
		if orderly {
			s.stop()
		} else {
			s.Kill()
		}
		// Devices and programs of a dead process go a moment later.
		for end := time.Now().Add(patience); tracesOf(t, l, bpffs).Link != before.Link && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		qt.Check(t, qt.DeepEquals(tracesOf(t, l, bpffs), before))
	}
}

// A second server on the NIC is told who has it; the first goes on.
func TestServeTwice(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t))
	other := poolFile(t) + "2"
	t.Cleanup(func() { removeFile(t, other) })
	_, err := tryServe(t, l, other, "--listen", l.ServerIP4.String()+":8081")
	qt.Assert(t, qt.IsNotNil(err))
	qt.Check(t, qt.StringContains(err.Error(), "process "+itoa(s.PID())))
	qt.Check(t, qt.StringContains(err.Error(), l.ServerDev))
	// The same pool is refused, too.
	_, err = tryServe(t, l, s.pool, "--nic", "", "--listen", l.ServerIP4.String()+":8081")
	qt.Assert(t, qt.IsNotNil(err))
	qt.Check(t, qt.StringContains(err.Error(), "in use"))
	qt.Check(t, qt.IsNil(get(newClient(t, l), s.url)))
}

// kill -9 and start at once, with no clean-up and no wait in between.
func TestKillAndRestart(t *testing.T) {
	for _, attached := range []bool{false, true} {
		l := newLab(t, netlab.Config{})
		usePrivateBPFFS(t)
		pool := poolFile(t)
		if attached {
			_, stderr, err := ctl(l, "attach", l.ServerDev)
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
		}
		c := newClient(t, l)
		for i := range 10 {
			s := serve(t, l, pool)
			c.CloseIdleConnections()
			_, err := post(c, s.url, random(100_000, int64(i)))
			qt.Assert(t, qt.IsNil(err))
			s.Kill()
		}
		if attached {
			_, stderr, err := ctl(l, "detach", l.ServerDev)
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
		}
		log := readLog(t, pool)
		for i := range 10 {
			qt.Check(t, qt.Equals(log[uint64(i+1)], sum(random(100_000, int64(i)))))
		}
		removeFile(t, pool)
	}
}
