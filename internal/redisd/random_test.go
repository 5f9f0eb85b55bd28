package redisd

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/seed"
)

// chooser makes commands at random, over few names, so that they meet.
type chooser struct {
	*rand.Rand
	n *int // of entries made
}

func (r chooser) of(words ...string) string { return words[r.IntN(len(words))] }

func (r chooser) name() string  { return r.of("a", "b", "c", "d", "a long name with blanks", "") }
func (r chooser) field() string { return r.of("f", "g", "h", "i", "j") }

func (r chooser) value() string {
	switch r.IntN(8) {
	case 0:
		return ""
	case 1, 2:
		return strconv.Itoa(r.IntN(2000) - 1000)
	case 3:
		return r.of("1.5", "3.14159", "-0.25", "1e3", "abc", " 1", "9223372036854775807", "-9223372036854775808", "0.1")
	case 4:
		return strings.Repeat(string(rune('a'+r.IntN(26))), r.IntN(9000))
	}
	return strings.Repeat(r.of("x", "yz", "\r\n", "\x00\xff"), r.IntN(60))
}

func (r chooser) number() string {
	return r.of("0", "1", "-1", "2", "5", "-3", "10", "100", "-100", "abc", "9223372036854775807", "-9223372036854775808", "")
}

// ms is a time that has come, or is far away.
func (r chooser) seconds() string {
	return r.of("0", "-1", "33177117420", "33177127420", "33177137420", "abc")
}

func (r chooser) some(f func() string) (list []string) {
	for range 1 + r.IntN(4) {
		list = append(list, f())
	}
	return list
}

func (r chooser) pairs(f func() string) (list []string) {
	for range 1 + r.IntN(3) {
		list = append(list, f(), r.value())
	}
	return list
}

func line(words ...string) []string { return words }

func join(list []string, words ...string) []string { return append(words, list...) }

// command returns one, and how its answers are compared.
func (r chooser) command() (args []string, mode string) {
	switch r.IntN(40) {
	case 0, 1, 2:
		return line("SET", r.name(), r.value()), ""
	case 3:
		return join(r.some(func() string { return r.of("NX", "XX", "GET", "KEEPTTL", "EX", "PX", "5000", "6000000", "-1") }), "SET", r.name(), r.value()), ""
	case 4:
		return line("SET", r.name(), r.value(), r.of("EX", "EXAT"), r.seconds()), ""
	case 5, 6:
		return line("GET", r.name()), ""
	case 7:
		return line(r.of("SETNX", "GETSET", "APPEND"), r.name(), r.value()), ""
	case 8:
		return line(r.of("GETDEL", "STRLEN", "TYPE", "PERSIST", "EXISTS", "INCR", "DECR", "TTL", "DEL", "UNLINK"), r.name()), ""
	case 9:
		return line("GETEX", r.name(), r.of("PERSIST", "EX", "EXAT"), r.seconds())[:3+r.IntN(2)], ""
	case 10:
		return join(r.some(r.name), r.of("MGET", "DEL", "EXISTS", "TOUCH")), ""
	case 11:
		return join(r.pairs(r.name), r.of("MSET", "MSETNX")), ""
	case 12:
		return line(r.of("INCRBY", "DECRBY", "INCRBYFLOAT"), r.name(), r.of(r.number(), r.value())), ""
	case 13:
		return line("GETRANGE", r.name(), r.number(), r.number()), ""
	case 14:
		return line("SETRANGE", r.name(), r.of("0", "1", "5", "3000", "-1", "x"), r.value()), ""
	case 15:
		return line(r.of("EXPIRE", "EXPIREAT"), r.name(), r.seconds(), r.of("NX", "XX", "GT", "LT"))[:3+r.IntN(2)], ""
	case 16:
		return line(r.of("TTL", "EXPIRETIME"), r.name()), "near"
	case 17, 18:
		return line(r.of("RENAME", "RENAMENX"), r.name(), r.name()), ""
	case 19:
		return line("KEYS", r.of("*", "a*", "?", "[a-c]", "")), "sorted"
	case 20:
		return line("DBSIZE"), ""
	case 21, 22, 23, 24:
		return join(r.pairs(r.field), "HSET", r.name()), ""
	case 25:
		return line(r.of("HGET", "HEXISTS", "HSTRLEN"), r.name(), r.field()), ""
	case 26:
		return join(r.some(r.field), r.of("HMGET", "HDEL"), r.name()), ""
	case 27, 28:
		return line("HGETALL", r.name()), "pairs"
	case 29:
		return line(r.of("HKEYS", "HVALS"), r.name()), "sorted"
	case 30:
		return line("HLEN", r.name()), ""
	case 31:
		return line("HSETNX", r.name(), r.field(), r.value()), ""
	case 32:
		return line(r.of("HINCRBY", "HINCRBYFLOAT"), r.name(), r.field(), r.of(r.number(), r.value())), ""
	case 33:
		return line("HRANDFIELD", r.name(), "100"), "sorted"
	case 34:
		return line("MULTI"), ""
	case 35:
		return line(r.of("EXEC", "EXEC", "DISCARD")), ""
	case 36:
		return line(r.of("WATCH", "UNWATCH"), r.name())[:1+r.IntN(2)], ""
	case 37:
		if r.IntN(20) == 0 {
			return line(r.of("FLUSHALL", "FLUSHDB")), ""
		}
		return line("TYPE", r.name()), ""
	case 38:
		return line(r.of("GET", "SET", "HSET", "EXPIRE", "NOSUCH", "MSET"), r.name()), ""
	}
	return line("SCAN", "0", "COUNT", "1000", "TYPE", r.of("string", "hash")), "skip"
}

// short renders an answer.
func short(v any) string {
	s := fmt.Sprintf("%#v", v)
	return s[:min(len(s), 1000)]
}

// TestRandomAsRedis gives commands at random to redis-server and to this one, from
// two connections each: every answer is the same, and so is all that is there in
// the end.
func TestRandomAsRedis(t *testing.T) {
	ours, theirs := open(t, 64<<20, 1, Config{}), reference(t)
	rounds := uint64(20)
	if testing.Short() {
		rounds = 5
	}
	for n := range seed.From(rounds) {
		r := chooser{Rand: rand.New(rand.NewPCG(n, 7))}
		var a, b [2]*client
		for i := range a {
			a[i], b[i] = dial(t, ours.addr), dial(t, theirs)
			proto := strconv.Itoa(2 + i)
			a[i].do("HELLO", proto)
			b[i].do("HELLO", proto)
		}
		a[0].do("FLUSHALL")
		b[0].do("FLUSHALL")
		var past []string
		try := func(i int, mode string, args ...string) {
			past = append(past, fmt.Sprintf("%d %.60q", i, args))
			x, y := a[i].do(args...), b[i].do(args...)
			if list, ok := x.([]any); ok && args[0] == "EXEC" { // of anything
				z, ok := y.([]any)
				qt.Assert(t, qt.IsTrue(ok && len(list) == len(z)), qt.Commentf("seed %d: %s\n we: %#v\nthey: %#v", n, strings.Join(past, "\n"), x, y))
				return
			}
			if p, ok := x.(string); ok {
				q, _ := y.(string)
				for i := range min(len(p), len(q)) {
					if p[i] != q[i] {
						t.Logf("%d and %d bytes, the first that differs is %d: %q, %q", len(p), len(q), i, p[i:min(len(p), i+20)], q[i:min(len(q), i+20)])
						break
					}
				}
			}
			qt.Assert(t, qt.IsTrue(same(mode, x, y)), qt.Commentf("seed %d, %s:\n%s\n we: %s\nthey: %s", n, mode, strings.Join(past[max(0, len(past)-60):], "\n"), short(x), short(y)))
		}
		for range 1500 {
			args, mode := r.command()
			try(r.IntN(2), mode, args...)
		}
		for i := range a {
			try(i, "skip", "DISCARD")
		}
		for _, name := range []string{"a", "b", "c", "d", "a long name with blanks", ""} {
			try(0, "", "TYPE", name)
			try(0, "", "GET", name)
			try(0, "pairs", "HGETALL", name)
			try(0, "near", "EXPIRETIME", name)
		}
		try(0, "", "DBSIZE")
	}
}

// streamCommand is command for streams.
func (r chooser) streamCommand() (args []string, mode string) {
	name := func() string { return r.of("a", "b", "c") }
	group := func() string { return r.of("g", "h") }
	who := func() string { return r.of("x", "y", "z") }
	id := func() string { return fmt.Sprintf("%d-%d", r.IntN(40), r.IntN(3)) }
	end := func() string { return r.of("-", "+", id(), "("+id(), strconv.Itoa(r.IntN(40))) }
	switch r.IntN(24) {
	case 0, 1, 2, 3, 4:
		*r.n++
		return line("XADD", name(), fmt.Sprintf("%d-%s", *r.n/4, r.of("*", "*", "1", "2")), "f", r.value()), ""
	case 5:
		*r.n++
		return line("XADD", name(), r.of("MAXLEN", "MINID"), r.of("=", "5", "3"), "4", fmt.Sprintf("%d-*", *r.n/4), "f", r.value()), ""
	case 6:
		return line("XLEN", name()), ""
	case 7, 8:
		return line(r.of("XRANGE", "XREVRANGE"), name(), end(), end(), "COUNT", r.of("3", "100"))[:4+2*r.IntN(2)], ""
	case 9:
		return line("XDEL", name(), id(), id()), ""
	case 10:
		return line("XTRIM", name(), r.of("MAXLEN", "MINID"), r.of("2", "5", "20", id())), ""
	case 11, 12:
		return line("XREAD", "COUNT", "5", "STREAMS", name(), name(), id(), r.of("$", id(), "0")), ""
	case 13:
		return line("XGROUP", "CREATE", name(), group(), r.of("0", "$", id()), "MKSTREAM")[:5+r.IntN(2)], ""
	case 14, 15, 16:
		return line("XREADGROUP", "GROUP", group(), who(), "COUNT", r.of("1", "3"), "STREAMS", name(), r.of(">", ">", ">", "0", id())), ""
	case 17:
		return line("XACK", name(), group(), id(), id(), id()), ""
	case 18:
		return line("XPENDING", name(), group()), ""
	case 19:
		return line("XCLAIM", name(), group(), who(), "0", id(), id(), r.of("JUSTID", "FORCE", "RETRYCOUNT"), "3")[:6+r.IntN(2)], ""
	case 20:
		return line("XAUTOCLAIM", name(), group(), who(), "0", id(), "COUNT", r.of("1", "10")), ""
	case 21:
		return line("XGROUP", r.of("DELCONSUMER", "CREATECONSUMER"), name(), group(), who()), ""
	case 22:
		if r.IntN(3) == 0 {
			return line(r.of("DEL", "TYPE", "PERSIST"), name()), ""
		}
		return line("XGROUP", r.of("DESTROY", "SETID"), name(), group(), r.of("0", id()))[:4+r.IntN(2)], ""
	}
	return line("XINFO", r.of("GROUPS", "GROUPS", "STREAM"), name()), "any"
}

// TestRandomStreamsAsRedis is TestRandomAsRedis for streams.
func TestRandomStreamsAsRedis(t *testing.T) {
	ours, theirs := open(t, 64<<20, 1, Config{}), reference(t)
	rounds := uint64(20)
	if testing.Short() {
		rounds = 5
	}
	for n := range seed.From(rounds) {
		r := chooser{Rand: rand.New(rand.NewPCG(n, 8)), n: new(int)}
		a, b := dial(t, ours.addr), dial(t, theirs)
		a.do("FLUSHALL")
		b.do("FLUSHALL")
		var past []string
		for range 1500 {
			args, mode := r.streamCommand()
			past = append(past, fmt.Sprintf("%.60q", args))
			x, y := a.do(args...), b.do(args...)
			qt.Assert(t, qt.IsTrue(same(mode, x, y)), qt.Commentf("seed %d, %s:\n%s\n we: %s\nthey: %s", n, mode, strings.Join(past[max(0, len(past)-40):], "\n"), short(x), short(y)))
		}
		for _, name := range []string{"a", "b", "c"} {
			qt.Assert(t, qt.IsTrue(same("", a.do("XRANGE", name, "-", "+"), b.do("XRANGE", name, "-", "+"))), qt.Commentf("seed %d: %s", n, name))
			x, y := a.do("XINFO", "GROUPS", name), b.do("XINFO", "GROUPS", name)
			qt.Assert(t, qt.IsTrue(same("", x, y)), qt.Commentf("seed %d: %s\n we: %v\nthey: %v", n, name, x, y))
		}
	}
}
