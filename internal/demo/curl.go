package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pastenet/paste/pmem"
)

// uploadBytes of a file make a record of some thousand segments.
const uploadBytes = 3 << 20

// curl lets a real client talk to the server, and looks up in the pool file
// what it sent.
func (d *demo) curl(ctx context.Context) error {
	if _, err := d.runCurl(ctx, "-sS", "-i", "http://"+d.addr.String()+"/"); err != nil {
		return err
	}
	return d.upload(ctx)
}

// upload stores a file and looks it up.
func (d *demo) upload(ctx context.Context) error {
	url := "http://" + d.addr.String() + "/"
	file := filepath.Join(d.dir, "upload")
	body := make([]byte, uploadBytes)
	rand.Read(body)
	if err := os.WriteFile(file, body, 0o600); err != nil {
		return err
	}
	defer os.Remove(file)
	out, err := d.runCurl(ctx, "-sS", "-i", "-T", file, url)
	if err != nil {
		return err
	}
	seq, err := sequence(out)
	if err != nil {
		return err
	}
	d.show(fmt.Sprintf("# pastectl pool log %s --record %d --raw | sha256sum", d.pool, seq))
	sum, frames, err := d.hashRecord(seq)
	if err != nil {
		return err
	}
	d.say("%x: %d bytes in %d packet buffers", sum[:8], len(body), frames)
	if sum != sha256.Sum256(body) {
		return fmt.Errorf("record %d is not what was sent: %w", seq, ErrLost)
	}
	d.say("the same as of the file that was sent")
	d.sum.UploadBytes = uploadBytes
	return nil
}

// runCurl shows the command and its output.
func (d *demo) runCurl(ctx context.Context, args ...string) ([]byte, error) {
	d.show("$ curl " + strings.Join(args, " "))
	// No proxy, and no settings of the user's.
	c := d.lab.ClientCommand(ctx, "curl", append([]string{"-q", "--noproxy", "*", "--max-time", "180"}, args...)...)
	out, err := c.CombinedOutput()
	for line := range bytes.Lines(out) {
		if line := bytes.TrimSpace(line); len(line) > 0 {
			d.say("%s", line)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("curl: %w", err)
	}
	return out, nil
}

// sequence finds the record's number in a response.
func sequence(response []byte) (uint64, error) {
	for line := range strings.Lines(string(response)) {
		name, value, ok := strings.Cut(line, ":")
		if ok && strings.EqualFold(name, "X-Paste-Seq") {
			return strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, errors.New("the response has no X-Paste-Seq")
}

// hashRecord reads a record while the server has the pool open.
func (d *demo) hashRecord(seq uint64) (sum [sha256.Size]byte, frames int, err error) {
	pool, err := pmem.Open(d.pool, pmem.Options{ReadOnly: true})
	if err != nil {
		return sum, 0, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	rec, err := pool.Log().Record(seq)
	if err != nil {
		return sum, 0, err
	}
	if err := rec.Verify(); err != nil {
		return sum, 0, err
	}
	h := sha256.New()
	if _, err := rec.WriteTo(io.Writer(h)); err != nil {
		return sum, 0, err
	}
	return [sha256.Size]byte(h.Sum(nil)), len(rec.Fragments), nil
}
