package conns

import "sync"

// claims are the sockets that some ring of this process has. The kernel keeps two
// rings from having one socket under their verdicts, but not from reading it.
var claims = struct {
	sync.Mutex
	cookies map[uint64]struct{}
}{cookies: map[uint64]struct{}{}}

// Claim makes a socket the caller's, until Release. It fails with ErrRegistered if
// it is another's. It may be called from any goroutine.
func Claim(cookie uint64) error {
	claims.Lock()
	defer claims.Unlock()
	if _, taken := claims.cookies[cookie]; taken {
		return ErrRegistered
	}
	claims.cookies[cookie] = struct{}{}
	return nil
}

// Release ends Claim.
func Release(cookie uint64) {
	claims.Lock()
	defer claims.Unlock()
	delete(claims.cookies, cookie)
}
