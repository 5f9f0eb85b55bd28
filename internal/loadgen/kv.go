package loadgen

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// KVConfig describes the KV workload.
type KVConfig struct {
	// Keys is the number of different keys.
	Keys int
	// PutPercent of the requests write, the others read.
	PutPercent int
	// Theta of the Zipf distribution of the keys, from 0 (all alike) to below 1.
	Theta float64
	// RESP speaks Redis's protocol instead of HTTP.
	RESP bool
	// Pipeline of RESP is how many requests a connection sends at once; 0 is 1. The next
	// follow when all are answered, and a latency is that of the last answer.
	Pipeline int
	// Preload writes every key once, in order, and ends.
	Preload bool
	// Seed of the random numbers.
	Seed uint64
}

func (k *KVConfig) check(size int) error {
	if k.Pipeline < 0 || k.Pipeline > maxPipeline || k.Pipeline > 1 && !k.RESP {
		return fmt.Errorf("%d requests at once: want up to %d, and RESP", k.Pipeline, maxPipeline)
	}
	if k.Keys < 1 || k.Keys > 1e9 || k.PutPercent < 0 || k.PutPercent > 100 || k.Theta < 0 || k.Theta >= 1 || size < 1 {
		return fmt.Errorf("%d keys, %d%% writes, theta %g, size %d: out of range", k.Keys, k.PutPercent, k.Theta, size)
	}
	return nil
}

// maxPipeline bounds KVConfig.Pipeline.
const maxPipeline = 1024

const (
	opOther = iota
	opGet
	opPut
)

// keyLen is the length of every key: "key:" and 12 digits.
const keyLen = 16

// kvRequest is a request with the place where its key goes.
type kvRequest struct {
	b  []byte
	at int
}

func (r *kvRequest) setKey(n uint64) {
	d := r.b[r.at+4 : r.at+keyLen]
	for i := len(d) - 1; i >= 0; i-- {
		d[i] = '0' + byte(n%10)
		n /= 10
	}
}

// buildKV lays out two requests for each connection.
func (g *generator) buildKV() error {
	const key = "key:000000000000"
	var get, put, end string
	if g.KV.RESP {
		get = "*2\r\n$3\r\nGET\r\n$16\r\n" + key + "\r\n"
		put = fmt.Sprintf("*3\r\n$3\r\nSET\r\n$16\r\n%s\r\n$%d\r\n", key, g.Size)
		end = "\r\n"
	} else {
		get = "GET /k/" + key + " HTTP/1.1\r\nHost: paste\r\n\r\n"
		put = fmt.Sprintf("PUT /k/%s HTTP/1.1\r\nHost: paste\r\nContent-Length: %d\r\n\r\n", key, g.Size)
	}
	size := len(get) + len(put) + g.Size + len(end)
	if size > (4<<30)/g.Connections {
		return fmt.Errorf("load generator: %d connections with values of %d bytes need more than 4 GiB", g.Connections, g.Size)
	}
	var err error
	if g.mem, err = unix.Mmap(-1, 0, size*g.Connections, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return fmt.Errorf("load generator: map %d bytes for requests: %w", size*g.Connections, err)
	}
	for i := range g.conns {
		c := &g.conns[i]
		c.id, c.fd = i, -1
		b := g.mem[i*size : (i+1)*size]
		copy(b, get+put)
		copy(b[size-len(end):], end)
		c.get = kvRequest{b[:len(get)], bytes.Index([]byte(get), []byte(key))}
		c.put = kvRequest{b[len(get):], bytes.Index([]byte(put), []byte(key))}
		c.body = b[len(get)+len(put) : size-len(end)]
		FillBody(c.body, g.Run, i, 0)
	}
	g.keys = newKeys(&g.KV)
	return g.buildPipelines()
}

// nextKV prepares c's request and returns its bytes.
func (g *generator) nextKV(c *conn) []byte {
	c.sentAt = g.now
	if c.batch != nil {
		return g.nextBatch(c)
	}
	return g.oneKV(c, c.n)
}

// oneKV prepares a request of a number.
func (g *generator) oneKV(c *conn, number uint64) []byte {
	k := g.keys
	if g.KV.Preload {
		c.op, c.resp.kind = opPut, 1
		c.put.setKey(k.next % uint64(g.KV.Keys))
		k.next++
		setID(c.body, g.Run, c.id, number)
		return c.put.b
	}
	n := k.draw()
	if int(k.rng.Uint32N(100)) >= g.KV.PutPercent {
		c.op, c.resp.kind = opGet, 0
		c.get.setKey(n)
		return c.get.b
	}
	c.op, c.resp.kind = opPut, 1
	c.put.setKey(n)
	setID(c.body, g.Run, c.id, number)
	return c.put.b
}

// keys draws key numbers, by the method of J. Gray et al., "Quickly generating
// billion-record synthetic databases" (SIGMOD 1994), as YCSB does: popular keys
// are spread over the key space.
type keys struct {
	n                 float64
	count, next       uint64
	theta             float64
	alpha, zetan, eta float64
	half              float64
	rng               *rand.Rand
}

func newKeys(c *KVConfig) *keys {
	k := &keys{n: float64(c.Keys), count: uint64(c.Keys), theta: c.Theta, rng: rand.New(rand.NewPCG(c.Seed, 99))}
	zeta2 := 0.0
	for i := 1; i <= c.Keys; i++ {
		k.zetan += 1 / math.Pow(float64(i), c.Theta)
		if i == 2 {
			zeta2 = k.zetan
		}
	}
	k.alpha = 1 / (1 - c.Theta)
	k.half = math.Pow(0.5, c.Theta)
	k.eta = (1 - math.Pow(2/k.n, 1-c.Theta)) / (1 - zeta2/k.zetan)
	return k
}

func (k *keys) draw() uint64 {
	if k.theta == 0 {
		return k.rng.Uint64N(k.count)
	}
	u := k.rng.Float64()
	uz := u * k.zetan
	rank := uint64(0)
	switch {
	case uz < 1:
	case uz < 1+k.half:
		rank = 1
	default:
		rank = uint64(k.n * math.Pow(k.eta*u-k.eta+1, k.alpha))
	}
	return rank * 0x9e3779b97f4a7c15 >> 8 % k.count // spread
}
