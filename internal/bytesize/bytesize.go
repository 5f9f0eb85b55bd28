// Package bytesize reads and prints numbers of bytes as people write them on a
// command line: "4096", "64MiB", "1G".
package bytesize

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes. *Size is a pflag.Value.
type Size int64

var units = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}

// Set reads a number with or without a binary unit.
func (s *Size) Set(text string) error {
	digits := strings.TrimRight(text, "KMGTkmgtiB")
	unit := int64(1)
	if suffix := text[len(digits):]; suffix != "" {
		unit = 0
		for _, u := range units {
			if strings.EqualFold(suffix, u.suffix) || strings.EqualFold(suffix, u.suffix[:1]) {
				unit = u.bytes
			}
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || unit == 0 || n <= 0 || n > math.MaxInt64/unit {
		return errors.New("want a number of bytes such as 4096, 64MiB or 1GiB")
	}
	*s = Size(n * unit)
	return nil
}

// Type names the flag's argument in a help text.
func (s *Size) Type() string { return "SIZE" }

// String is exact, so that Set reads the same value from it.
func (s *Size) String() string {
	n, suffix := int64(*s), ""
	for _, u := range units {
		if int64(*s) >= u.bytes && int64(*s)%u.bytes == 0 {
			n, suffix = int64(*s)/u.bytes, u.suffix
		}
	}
	return strconv.FormatInt(n, 10) + suffix
}

// Human is rounded, for people.
func (s Size) Human() string {
	for i := len(units) - 1; i >= 0; i-- {
		if u := units[i]; int64(s) >= u.bytes {
			return fmt.Sprintf("%.1f %s", float64(s)/float64(u.bytes), u.suffix)
		}
	}
	return fmt.Sprintf("%d B", int64(s))
}
