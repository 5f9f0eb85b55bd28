package pmem

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// writerEnv makes the test binary a process that appends to the pool it names
// until it is killed, and prints the number of each record that was committed.
const writerEnv = "PMEM_TEST_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		fmt.Fprintln(os.Stderr, writeForEver(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func writeForEver(path string) error {
	p, err := OpenOrCreate(path, Options{Size: testSize})
	if err != nil {
		return err
	}
	for {
		seq := p.Log().Next()
		if _, err := p.Log().AppendCopy(killPayload(seq)); err != nil {
			return err
		}
		if err := p.Log().Commit(); err != nil {
			return err
		}
		fmt.Println(seq)
		if p.Log().Len() > 100 {
			if err := p.Log().Truncate(seq - 50); err != nil {
				return err
			}
			var r Root
			le.PutUint64(r.Value[:], seq-50)
			if err := p.SetRoot("last truncated", r); err != nil {
				return err
			}
		}
	}
}

// killPayload is the payload of record seq, of a length that depends on it.
func killPayload(seq uint64) []byte {
	b := make([]byte, seq*997%5000)
	for i := range b {
		b[i] = byte(seq)
	}
	return binary.LittleEndian.AppendUint64(b, seq)
}

// A writer killed with SIGKILL, again and again, loses nothing it had reported.
func TestKilledWriter(t *testing.T) {
	t.Run("tmpfs", func(t *testing.T) { killWriters(t, filepath.Join(shm(t), "p.pool")) })
	t.Run("disk", func(t *testing.T) { killWriters(t, filepath.Join(onDisk(t), "p.pool")) })
}

func killWriters(t *testing.T, path string) {
	acked := uint64(0)
	for round := range 10 {
		w := exec.Command(os.Args[0])
		w.Env = append(os.Environ(), writerEnv+"="+path)
		w.Stderr = os.Stderr
		out, err := w.StdoutPipe()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(w.Start()))
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == 0 && round == 0 {
				_, err := Open(path, Options{})
				qt.Check(t, qt.ErrorIs(err, ErrLocked))
				qt.Check(t, qt.StringContains(fmt.Sprint(err), fmt.Sprintf("process %d", w.Process.Pid)))
			}
			acked, err = strconv.ParseUint(strings.TrimSpace(lines.Text()), 10, 64)
			qt.Assert(t, qt.IsNil(err))
			if n == 20+71*round {
				qt.Assert(t, qt.IsNil(w.Process.Kill()))
			}
		}
		w.Wait()

		p, err := Open(path, Options{})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(p.Log().Next() > acked), qt.Commentf("next %d, acknowledged %d", p.Log().Next(), acked))
		root, ok := p.Root("last truncated")
		qt.Assert(t, qt.IsTrue(!ok || le.Uint64(root.Value[:]) < p.Log().Next()), qt.Commentf("%+v, next %d", root, p.Log().Next()))
		for r, err := range p.Log().Records() {
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(r.Verify()))
			qt.Assert(t, qt.DeepEquals(payloadOf(t, r), killPayload(r.Seq)))
		}
		qt.Assert(t, qt.IsNil(p.Close()))
	}
	qt.Assert(t, qt.Not(qt.Equals(acked, 0)))
}
