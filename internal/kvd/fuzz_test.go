package kvd

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pmem/kv"
)

// Whatever a Range says, what is sent lies in the value.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=-5", "bytes=7-", "bytes=9-2", "bytes=0-0,2-3", "bytes=99999999999999999999-", "lines=1-2"} {
		f.Add([]byte(s), int64(10))
	}
	f.Fuzz(func(t *testing.T, field []byte, size int64) {
		if size < 0 || size > maxValue {
			return
		}
		from, n, ok := parseRange(field, size)
		qt.Assert(t, qt.IsTrue(!ok || n == 0 || from >= 0 && n > 0 && n <= size && from <= size-n), qt.Commentf("%d bytes from %d on, of %d", n, from, size))
	})
}

// What is read of a batch can be made.
func FuzzBatch(f *testing.F) {
	for _, s := range []string{`{"put":"a","text":"x","ttl":5,"type":"a/b"}{"delete":"%00"}`, `{"put":"a","data":"AAEC","if_match":"\"x\""}`, `{"put":null}`, `[]`, `{"put":"a","text":"\ud800"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		list, text := parseBatch(body)
		qt.Assert(t, qt.Equals(len(list) > 0, text == ""))
		for _, o := range list {
			qt.Assert(t, qt.IsTrue(len(o.key) > 0 && len(o.key) <= kv.MaxKey))
			if o.Delete == nil {
				var b [maxHead]byte
				m := meta{tag: []byte(`"12345678901"`), ctype: []byte(o.Type), expires: 1}
				head := appendHead(b[:0], &m, "", int64(len(o.value())))
				qt.Assert(t, qt.IsTrue(len(head) <= maxHead))
				back := parseHead(head)
				qt.Assert(t, qt.Equals(string(back.ctype), o.Type))
				qt.Assert(t, qt.Equals(back.expires, 1))
			}
		}
	})
}
