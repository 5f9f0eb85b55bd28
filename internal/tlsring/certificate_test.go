package tlsring_test

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/internal/tlsring"
	"github.com/pastenet/paste/internal/tlsring/tlstest"
)

// TestBadFiles: what is wrong with a file is told with its name.
func TestBadFiles(t *testing.T) {
	cert, key := tlstest.Files(t)
	otherCert, otherKey := filepath.Join(t.TempDir(), "other.pem"), filepath.Join(t.TempDir(), "other.key")
	tlstest.Write(t, tlstest.Another(), otherCert, otherKey)
	junk := filepath.Join(t.TempDir(), "junk")
	qt.Assert(t, qt.IsNil(os.WriteFile(junk, []byte("no pem"), 0o600)))
	for _, tc := range []struct{ cert, key, want string }{
		{"/nowhere/cert", key, "certificate: .*/nowhere/cert: no such file or directory"},
		{cert, "/nowhere/key", "certificate: .*/nowhere/key: no such file or directory"},
		{junk, key, "certificate: .*/junk has no PEM block CERTIFICATE"},
		{key, cert, "certificate: .*/key.pem has no PEM block CERTIFICATE"},
		{cert, junk, "key of the certificate: .*/junk has no PEM block PRIVATE KEY"},
		{cert, otherKey, "certificate .*/cert.pem with key .*/other.key: private key does not match public key"},
	} {
		_, err := tlsring.Load(tc.cert, tc.key, slog.Default())
		qt.Check(t, qt.ErrorMatches(err, tc.want))
	}
}

// TestReload: files that have changed are read again; a pair that does not fit is told,
// and the old one goes on.
func TestReload(t *testing.T) {
	cert, key := tlstest.Files(t)
	var told bytes.Buffer
	c, err := tlsring.Load(cert, key, slog.New(slog.NewTextHandler(&told, nil)))
	qt.Assert(t, qt.IsNil(err))
	config := c.Config()
	serial := func() string {
		got, err := config.GetCertificate(&tls.ClientHelloInfo{})
		qt.Assert(t, qt.IsNil(err))
		return got.Leaf.SerialNumber.String()
	}
	first, other := serial(), tlstest.Another()
	tlstest.Write(t, other, cert, filepath.Join(t.TempDir(), "elsewhere"))
	later := time.Now().Add(time.Minute) // a clock may stand still between two writes
	qt.Assert(t, qt.IsNil(os.Chtimes(cert, later, later)))
	testwait.Until(t, "the change is noticed", func() bool {
		qt.Assert(t, qt.Equals(serial(), first))
		return bytes.Contains(told.Bytes(), []byte("does not match"))
	})
	tlstest.Write(t, other, cert, key)
	testwait.Until(t, "the new pair is taken", func() bool { return serial() == other.Leaf.SerialNumber.String() })
}
