package bytesize

import (
	"testing"

	"github.com/go-quicktest/qt"
)

func TestSize(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want int64
		out  string
	}{
		{"1", 1, "1"},
		{"4096", 4096, "4KiB"},
		{"1000", 1000, "1000"},
		{"64MiB", 64 << 20, "64MiB"},
		{"1g", 1 << 30, "1GiB"},
		{"3TiB", 3 << 40, "3TiB"},
	} {
		var s Size
		qt.Assert(t, qt.IsNil(s.Set(tc.in)))
		qt.Assert(t, qt.Equals(int64(s), tc.want))
		qt.Assert(t, qt.Equals(s.String(), tc.out))
	}
	for _, bad := range []string{"", "0", "-1", "1.5G", "1GB", "G", "99999999TiB", "1 GiB"} {
		var s Size
		qt.Check(t, qt.IsNotNil(s.Set(bad)), qt.Commentf("%q", bad))
	}
	qt.Check(t, qt.Equals(Size(1536).Human(), "1.5 KiB"))
	qt.Check(t, qt.Equals(Size(1000).Human(), "1000 B"))
}
