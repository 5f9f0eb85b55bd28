package tests

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/seed"
	"golang.org/x/sys/unix"
)

// With --durable-ack, whatever the client's TCP has seen acknowledged is in the
// pool's file, at any instant, long before the request is complete. The pool
// is on a disk, where that is not the same memory as what the NIC receives into.
func TestDurableAck(t *testing.T) {
	for _, kind := range []string{"http", "kv"} {
		for _, durable := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", kind, durable), func(t *testing.T) {
				l := newLab(t, netlab.Config{})
				s := serveKind(t, l, kind, diskFile(t), "--pool-size", "32MiB", fmt.Sprintf("--durable-ack=%v", durable))
				c := dial(t, l, s.addr)
				// What came before the connection was registered has been copied.
				path := map[string]string{"http": "/", "kv": "/k/x"}[kind]
				_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
				qt.Assert(t, qt.IsNil(err))
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				qt.Assert(t, qt.IsNil(err))
				_, err = io.Copy(io.Discard, resp.Body)
				qt.Assert(t, qt.IsNil(err))
				before := bytesAcked(t, c)

				stream := tokens(fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n", path), 2_000_000)
				sent := make(chan error, 1)
				go func() {
					_, err := c.Write(stream)
					sent <- err
				}()
				partly, rng := 0, seed.New(t)
				for acked := 0; acked < len(stream); {
					time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Millisecond)))) // any instant
					s.suspend()
					acked = bytesAcked(t, c) - before
					found := stored(t, s.pool, stream)
					if durable {
						qt.Assert(t, qt.IsTrue(found >= acked), qt.Commentf("%d bytes are acknowledged, the first %d are in the file", acked, found))
					} else if acked > 0 {
						qt.Assert(t, qt.IsTrue(found < acked), qt.Commentf("the same without --durable-ack"))
					}
					if acked > 0 && acked < len(stream) {
						partly++
					}
					if durable && acked == len(stream) {
						qt.Check(t, qt.Equals(unsynced(t, s.pool), 0))
					}
					qt.Assert(t, qt.IsNil(s.Signal(syscall.SIGCONT)))
				}
				qt.Assert(t, qt.IsNil(<-sent))
				t.Logf("looked %d times in the middle", partly)
			})
		}
	}
}

// suspend stops the server in its tracks.
func (s *server) suspend() {
	s.t.Helper()
	qt.Assert(s.t, qt.IsNil(s.Signal(syscall.SIGSTOP)))
	waitFor(s.t, func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.PID()))
		qt.Assert(s.t, qt.IsNil(err))
		return !slices.ContainsFunc(threads, func(path string) bool {
			b, err := os.ReadFile(path)
			return err == nil && !strings.Contains(string(b), ") T ")
		})
	})
}

// bytesAcked counts from the beginning of a connection, its SYN included.
func bytesAcked(t testing.TB, c *net.TCPConn) (n int) {
	t.Helper()
	raw, err := c.SyscallConn()
	qt.Assert(t, qt.IsNil(err))
	var info *unix.TCPInfo
	var infoErr error
	qt.Assert(t, qt.IsNil(raw.Control(func(fd uintptr) {
		info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})))
	qt.Assert(t, qt.IsNil(infoErr))
	return int(info.Bytes_acked)
}

const tokenSize = 16

// tokens is a stream in which every place can be told from every other one.
func tokens(head string, n int) []byte {
	b := []byte(head)
	for i := range n / tokenSize {
		b = fmt.Appendf(b, "<%014x>", i)
	}
	return b
}

// stored is how many bytes of the stream, from its beginning, are in a pool's
// file, in pieces of any size.
func stored(t testing.TB, path string, stream []byte) int {
	t.Helper()
	file, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	head := bytes.IndexByte(stream, '<')
	has := make([]bool, len(stream))
	for at := 0; ; at++ {
		i := bytes.IndexByte(file[at:], '<')
		if i < 0 {
			break
		}
		at += i
		var token int
		if _, err := fmt.Sscanf(string(file[at:min(at+tokenSize, len(file))]), "<%014x>", &token); err != nil {
			continue
		}
		from := head + token*tokenSize
		to, end := from, at
		for to < len(stream) && end < len(file) && stream[to] == file[end] {
			has[to] = true
			to, end = to+1, end+1
		}
		for b := at; from > 0 && b > 0 && stream[from-1] == file[b-1]; b-- {
			from--
			has[from] = true
		}
		at = end - 1
	}
	if n := slices.Index(has, false); n >= 0 {
		return n
	}
	return len(stream)
}

// unsynced counts the pages of a file that are not on its disk: cachestat(2),
// include/uapi/linux/mman.h.
func unsynced(t testing.TB, path string) int {
	t.Helper()
	f, err := os.Open(path)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	var whole struct{ off, len uint64 } // len 0: to the end
	var stat struct{ cache, dirty, writeback, evicted, recentlyEvicted uint64 }
	_, _, errno := unix.Syscall6(unix.SYS_CACHESTAT, f.Fd(), uintptr(unsafe.Pointer(&whole)), uintptr(unsafe.Pointer(&stat)), 0, 0, 0)
	qt.Assert(t, qt.Equals(errno, 0))
	return int(stat.dirty + stat.writeback)
}
