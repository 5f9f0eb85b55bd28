package tap

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// modprobe helps where the driver is missing, and nowhere else.
func TestOpenError(t *testing.T) {
	for errno, modprobe := range map[unix.Errno]bool{
		unix.EACCES: false, unix.EPERM: false, unix.EMFILE: false, unix.ENOENT: true, unix.ENODEV: true,
	} {
		err := openError(errno)
		qt.Check(t, qt.IsTrue(errors.Is(err, errno)))
		qt.Check(t, qt.Equals(strings.Contains(err.Error(), "modprobe"), modprobe), qt.Commentf("%v", err))
	}
}
