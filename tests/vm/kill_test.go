package vm

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pmem"
)

// writerEnv makes the test binary a process that appends to the pool it names
// until it is killed, and prints the number of each record that was committed.
const writerEnv = "PASTE_TEST_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		fmt.Fprintln(os.Stderr, write(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func write(path string) error {
	p, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		return err
	}
	for {
		n := p.Log().Next()
		if _, err := received(p, record(n)); err != nil {
			return err
		}
		if err := p.Log().Commit(); err != nil {
			return err
		}
		fmt.Println(n)
		if p.Log().Len() > 200 {
			if err := p.Log().Truncate(n - 100); err != nil {
				return err
			}
		}
	}
}

// A writer killed again and again loses nothing of what it said is committed.
func TestKilledWriter(t *testing.T) {
	path, _ := place(t)
	qt.Assert(t, qt.IsNil(create(t, path, pmem.Options{Size: 8 << 20}).Close()))
	acked := uint64(0)
	for round := range 6 {
		w := exec.Command(os.Args[0])
		w.Env = append(os.Environ(), writerEnv+"="+path)
		w.Stderr = os.Stderr
		out, err := w.StdoutPipe()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(w.Start()))
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			acked, err = strconv.ParseUint(lines.Text(), 10, 64)
			qt.Assert(t, qt.IsNil(err))
			if n == 50+67*round {
				qt.Assert(t, qt.IsNil(w.Process.Kill()))
			}
		}
		w.Wait()
		sound(t, path)
		p := open(t, path, pmem.Options{})
		qt.Assert(t, qt.IsTrue(p.Log().Next() > acked), qt.Commentf("next %d, acknowledged %d", p.Log().Next(), acked))
		for rec, err := range p.Log().Records() {
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsTrue(bytes.Equal(payload(rec), record(rec.Seq))))
		}
		qt.Assert(t, qt.IsNil(p.Close()))
	}
	qt.Assert(t, qt.IsTrue(acked > 0), qt.Commentf("%v", acked))
}
