package tlsring

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// Certificate is a certificate with its key, in two PEM files that are read again when
// they have changed.
type Certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu     sync.Mutex
	cert   *tls.Certificate
	state  [2]fileState // of the files that cert, or what failed, came from
	looked time.Time
}

// fileState says which content of a file it was.
type fileState struct {
	modified time.Time
	size     int64
}

// lookEvery is how often the files are looked at, at most, when there are handshakes.
const lookEvery = time.Second

// Load reads a certificate, with those that it was signed by behind it, and its key.
// Later changes of the files are noticed, and told to log.
func Load(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log, looked: time.Now()}
	var err error
	if c.state, err = c.stat(); err != nil {
		return nil, err
	}
	if c.cert, err = c.read(); err != nil {
		return nil, err
	}
	return c, nil
}

// Config is a server's configuration for TLS 1.2 and later, with the given application
// protocols (ALPN).
func (c *Certificate) Config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protocols, GetCertificate: c.get,
		// Small records first are for browsers that render while they load.
		DynamicRecordSizingDisabled: true,
	}
}

func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= lookEvery {
		c.looked = now
		c.reload()
	}
	return c.cert, nil
}

// reload reads the files again if they have changed. While one of two has been replaced
// they do not fit, and the old ones go on.
func (c *Certificate) reload() {
	state, err := c.stat()
	if err == nil && state == c.state {
		return
	}
	var cert *tls.Certificate
	if err == nil {
		c.state = state
		cert, err = c.read()
	}
	if err != nil {
		c.log.Warn("the certificate has changed and cannot be used, the old one goes on", "err", err)
		return
	}
	c.cert = cert
	c.log.Info("the certificate has changed", "cert", c.certFile, "not_after", cert.Leaf.NotAfter)
}

func (c *Certificate) stat() (state [2]fileState, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		st, err := os.Stat(name)
		if err != nil {
			return state, fmt.Errorf("certificate: %w", err)
		}
		state[i] = fileState{st.ModTime(), st.Size()}
	}
	return state, nil
}

func (c *Certificate) read() (*tls.Certificate, error) {
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("key of the certificate: %w", err)
	}
	if !hasBlock(cert, "CERTIFICATE") {
		return nil, fmt.Errorf("certificate: %s has no PEM block CERTIFICATE", c.certFile)
	}
	if !hasBlock(key, "PRIVATE KEY") {
		return nil, fmt.Errorf("key of the certificate: %s has no PEM block PRIVATE KEY", c.keyFile)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", c.certFile, c.keyFile, errors.New(strings.TrimPrefix(err.Error(), "tls: ")))
	}
	return &pair, nil
}

// hasBlock says whether there is a PEM block of a type that ends so.
func hasBlock(data []byte, kind string) bool {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return false
		}
		if strings.HasSuffix(block.Type, kind) {
			return true
		}
		data = rest
	}
}
