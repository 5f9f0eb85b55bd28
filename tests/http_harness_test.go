package tests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/pmem"
)

// newClient is a net/http client in the lab's client namespace.
func newClient(t testing.TB, l *netlab.Lab) *http.Client {
	tr := &http.Transport{DialContext: l.Client.DialContext, MaxIdleConnsPerHost: 10000}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// get expects 200 with a body of the default length.
func get(c *http.Client, url string) error {
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("body of GET: %w", err)
	}
	if resp.StatusCode != http.StatusOK || len(body) != 64 {
		return fmt.Errorf("GET: %s with %d bytes", resp.Status, len(body))
	}
	return nil
}

// post expects 201 and returns the record's number.
func post(c *http.Client, url string, body []byte) (seq uint64, err error) {
	resp, err := c.Post(url, "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	return seqOf(resp)
}

func seqOf(resp *http.Response) (uint64, error) {
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, fmt.Errorf("body of reply: %w", err)
	}
	if resp.StatusCode != http.StatusCreated {
		return 0, fmt.Errorf("%s: %s", resp.Status, text)
	}
	return strconv.ParseUint(resp.Header.Get("X-Paste-Seq"), 10, 64)
}

// readLog opens the pool's log while no server has it, checks every record and
// returns the hash of each.
func readLog(t testing.TB, path string) map[uint64][32]byte {
	t.Helper()
	p, err := pmem.Open(path, pmem.Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	qt.Assert(t, qt.IsNil(p.Log().Recovery().Damage))
	sums := make(map[uint64][32]byte)
	for r, err := range p.Log().Records() {
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(r.Verify()))
		h := sha256.New()
		_, err = r.WriteTo(h)
		qt.Assert(t, qt.IsNil(err))
		sums[r.Seq] = [32]byte(h.Sum(nil))
	}
	return sums
}

// record reads one record as a user does.
func record(t testing.TB, path string, seq uint64) []byte {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(context.Background(), pastectl, "pool", "log", path, "--record", strconv.FormatUint(seq, 10), "--raw")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr.String()))
	return out
}

func sum(b []byte) [32]byte { return sha256.Sum256(b) }
