package redisd

import (
	"bufio"
	"embed"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

//go:embed testdata/*.txt
var scripts embed.FS

// script is a line of testdata: a command, and what is compared of its answer.
type script struct {
	where string
	mode  string // how answers are compared, see same
	args  []string
}

// readScripts reads the commands of testdata. A line is a command, whose words may
// be quoted as redis-cli has it; "#" begins a comment, and a word with a
// colon in front says how answers are compared.
func readScripts(t *testing.T) (list []script) {
	files, err := scripts.ReadDir("testdata")
	qt.Assert(t, qt.IsNil(err))
	for _, f := range files {
		b, err := scripts.ReadFile("testdata/" + f.Name())
		qt.Assert(t, qt.IsNil(err))
		n := 0
		for s := bufio.NewScanner(strings.NewReader(string(b))); s.Scan(); {
			n++
			line := strings.TrimSpace(s.Text())
			if line == "" || line[0] == '#' {
				continue
			}
			c := script{where: fmt.Sprintf("%s:%d", f.Name(), n)}
			if line[0] == ':' {
				c.mode, line, _ = strings.Cut(line[1:], " ")
			}
			c.args = splitLine(t, line)
			list = append(list, c)
		}
	}
	return list
}

// same compares answers. Modes: "" all of it; "any" only that both are errors or
// both are not; "sorted" lists in any order; "pairs" lists of pairs in any order;
// "near" integers that differ by little; "skip" nothing.
func same(mode string, a, b any) bool {
	switch mode {
	case "skip":
		return true
	case "any":
		_, x := a.(failure)
		_, y := b.(failure)
		return x == y
	case "sorted":
		return reflect.DeepEqual(sorted(a, 1), sorted(b, 1))
	case "pairs":
		return reflect.DeepEqual(sorted(a, 2), sorted(b, 2))
	case "near":
		x, ok := a.(int64)
		y, ok2 := b.(int64)
		if ok && ok2 {
			return x-y < 300_000 && y-x < 300_000
		}
	}
	return reflect.DeepEqual(a, b)
}

// sorted returns a list in an order of its own, n elements at a time.
func sorted(v any, n int) any {
	if p, ok := v.(pairs); ok {
		v = []any(p)
		n = 2
	}
	list, ok := v.([]any)
	if !ok || len(list)%n != 0 {
		return v
	}
	var parts []string
	for i := 0; i < len(list); i += n {
		parts = append(parts, fmt.Sprintf("%#v", list[i:i+n]))
	}
	slices.Sort(parts)
	return parts
}

// TestSameAsRedis gives every command of testdata to redis-server and to this one,
// in RESP2 and RESP3: the answers are the same.
func TestSameAsRedis(t *testing.T) {
	ours, theirs := open(t, 64<<20, 1, Config{}), reference(t)
	for _, proto := range []string{"2", "3"} {
		a, b := dial(t, ours.addr), dial(t, theirs)
		a.do("HELLO", proto)
		b.do("HELLO", proto)
		for _, c := range readScripts(t) {
			x, y := a.do(c.args...), b.do(c.args...)
			if !same(c.mode, x, y) {
				t.Errorf("RESP%s %s: %q\n we: %#v\nthey: %#v", proto, c.where, c.args, x, y)
			}
		}
	}
}
