package pmem

import (
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
)

// Flushes are left out where they are in vain, and nowhere else.
func TestNoVainFlush(t *testing.T) {
	domain := func(dir string, o Options) Domain {
		o.Size = testSize
		p, err := Create(filepath.Join(dir, "vain.pool"), o)
		qt.Assert(t, qt.IsNil(err))
		t.Cleanup(func() { p.Close() })
		return p.dom
	}
	isNone := func(d Domain) bool { _, is := d.(*noDomain); return is }
	qt.Check(t, qt.IsTrue(isNone(domain(shm(t), Options{NoVainFlush: true}))))
	qt.Check(t, qt.IsFalse(isNone(domain(shm(t), Options{}))))
	disk := domain(onDisk(t), Options{NoVainFlush: true})
	qt.Check(t, qt.IsFalse(isNone(disk)))
	if d, is := disk.(*fileDomain); is { // a machine may have nothing but tmpfs
		qt.Check(t, qt.IsFalse(d.noSync))
	}
}
