package pasteapi

import (
	"fmt"

	"github.com/pastenet/paste/pasteapi/internal/send"
)

// SendMode says how the slots of a TX ring are sent.
type SendMode int

const (
	// SendAuto takes what costs less on this machine: that is measured when the
	// first port of a process is opened, in some two milliseconds. Where there is
	// no io_uring, sends are plain.
	SendAuto SendMode = iota
	// SendPlain makes a system call for each connection that is sent to.
	SendPlain
	// SendURing makes one io_uring_enter for all connections of a TxSync.
	SendURing
)

var sendNames = [...]string{SendAuto: "auto", SendPlain: "plain", SendURing: "io_uring"}

// String returns "auto", "plain" or "io_uring".
func (m SendMode) String() string {
	if m < 0 || int(m) >= len(sendNames) {
		return fmt.Sprintf("SendMode(%d)", int(m))
	}
	return sendNames[m]
}

// ParseSendMode is the inverse of String.
func ParseSendMode(s string) (SendMode, error) {
	for m, name := range sendNames {
		if s == name {
			return SendMode(m), nil
		}
	}
	return 0, fmt.Errorf("unknown way to send %q: must be auto, plain or io_uring", s)
}

// MarshalText makes the mode a word in JSON.
func (m SendMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (m *SendMode) UnmarshalText(text []byte) (err error) {
	*m, err = ParseSendMode(string(text))
	return err
}

// means is what the mode comes to on this machine.
func (m SendMode) means() send.Means {
	switch m {
	case SendPlain:
		return send.Means{Why: "it was asked for"}
	case SendURing:
		return send.Means{URing: true, Why: "it was asked for"}
	}
	return send.Cheaper()
}

// status describes how a port with the mode sends.
func (m SendMode) status() SendStatus {
	means := m.means()
	s := SendStatus{Mode: m, Used: SendPlain, Why: means.Why}
	if means.URing {
		s.Used = SendURing
	}
	return s
}
