package bench

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

var update = flag.Bool("update", false, "write the tables of docs/performance.md from the results beside it")

const (
	page    = "../../docs/performance.md"
	results = "../../docs/performance"
)

func read[T any](t *testing.T, name string) *T {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(results, name))
	qt.Assert(t, qt.IsNil(err))
	v := new(T)
	qt.Assert(t, qt.IsNil(json.Unmarshal(b, v)))
	return v
}

// The tables of docs/performance.md are what was measured: what `pastectl bench` has
// written to docs/performance.
func TestPage(t *testing.T) {
	made := map[string]string{}
	section := func(name string, write func(*strings.Builder) error) {
		var b strings.Builder
		qt.Assert(t, qt.IsNil(write(&b)))
		made[name] = b.String()
	}
	m := read[MatrixReport](t, "matrix.json")
	section("bars", func(b *strings.Builder) error { return m.WriteBars(b) })
	section("figures", func(b *strings.Builder) error { return m.WriteFigures(b) })
	section("stages", func(b *strings.Builder) error {
		b.WriteString("```\n")
		defer b.WriteString("```\n")
		return read[StagesReport](t, "stages.json").WriteTable(b)
	})
	section("redis", func(b *strings.Builder) error { return WriteRedis(b, *read[[]*Report](t, "redis.json")) })

	text, err := os.ReadFile(page)
	qt.Assert(t, qt.IsNil(err))
	whole := string(text)
	for name, want := range made {
		begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->"
		before, rest, ok := strings.Cut(whole, begin)
		qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%s has no %q", page, begin))
		got, after, ok := strings.Cut(rest, end)
		qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%s has no %q", page, end))
		if *update {
			whole = before + begin + want + end + after
			continue
		}
		qt.Check(t, qt.Equals(got, want), qt.Commentf("go test ./internal/bench -run TestPage -update"))
	}
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile(page, []byte(whole), 0o644)))
	}

	// A bar that is not reached has a line that says why.
	_, why, ok := strings.Cut(whole, "## Floors that are not reached\n")
	qt.Assert(t, qt.IsTrue(ok))
	why, _, _ = strings.Cut(why, "\n## ")
	for _, bar := range m.Missed() {
		qt.Check(t, qt.StringContains(why, "`"+bar+"`"))
	}
}
