package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/pastenet/paste/pmem"
)

const (
	uploadHeader = 16 // connection and number, little endian, 8 bytes each
	uploadLeast  = 4 << 10
	uploadMost   = 64 << 10
)

// uploadBody is what connection conn sends as its n-th upload. It names itself,
// so that whoever finds it can tell every one of its bytes.
func uploadBody(conn, n uint64) []byte {
	rng := rand.NewChaCha8([32]byte{byte(conn), byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	b := make([]byte, uploadLeast+rng.Uint64()%(uploadMost-uploadLeast))
	rng.Read(b[uploadHeader:])
	binary.LittleEndian.PutUint64(b, conn)
	binary.LittleEndian.PutUint64(b[8:], n)
	return b
}

// uploads sends to a server that is killed and started again and again, until
// its own process is killed. A connection goes on to its next upload only when
// the one before was acknowledged. Datagrams that nobody takes arrive all the
// time, so that the NIC writes to frames also while there is no server.
func uploads(tcp, udp string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var running sync.WaitGroup
	for conn := range uint64(connections) {
		running.Add(1)
		go func() {
			defer running.Done()
			client := &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second}
			for n := uint64(1); ctx.Err() == nil; {
				if err := put(ctx, client, tcp, uploadBody(conn, n)); err != nil {
					time.Sleep(20 * time.Millisecond)
					continue
				}
				n++
			}
		}()
	}
	noise, err := net.Dial("udp", udp)
	if err != nil {
		return err
	}
	defer noise.Close()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	datagram := bytes.Repeat([]byte{0xee}, 1400)
	for ctx.Err() == nil {
		<-tick.C
		noise.Write(datagram) // refused or lost is as good
	}
	running.Wait()
	return errors.New("nobody has ended the uploads")
}

func put(ctx context.Context, client *http.Client, addr string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+addr+"/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusCreated {
		return errors.New(resp.Status)
	}
	return nil
}

// verifyUploads compares every record of a pool with what uploads has sent.
func verifyUploads(place string) (err error) {
	var records, size, damaged int
	var found [connections]map[uint64]bool
	pool, err := openRecords(place, func(rec pmem.Record, body []byte) {
		records++
		size += len(body)
		conn, n, ok := ownUpload(body)
		if !ok || rec.Verify() != nil {
			fmt.Printf("record %d, %d bytes, is not what was sent\n", rec.Seq, len(body))
			damaged++
			return
		}
		if found[conn] == nil {
			found[conn] = map[uint64]bool{}
		}
		found[conn][n] = true
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	lost := 0
	for conn := range found {
		var last uint64
		for n := range found[conn] {
			last = max(last, n)
		}
		// All before the last one were acknowledged, or it had not been sent.
		lost += int(last) - len(found[conn])
	}
	fmt.Printf("%v: %d records of %d bytes compared, %d damaged, %d acknowledged and not found\n",
		pool.Backing(), records, size, damaged, lost)
	if records == 0 || damaged > 0 || lost > 0 {
		return errors.New("not what was sent")
	}
	return nil
}

// ownUpload reports which upload b is, if each of its bytes is as it was sent.
func ownUpload(b []byte) (conn, n uint64, ok bool) {
	if len(b) < uploadLeast {
		return 0, 0, false
	}
	conn, n = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	return conn, n, conn < connections && bytes.Equal(b, uploadBody(conn, n))
}
