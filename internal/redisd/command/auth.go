package command

import (
	"crypto/subtle"
	"fmt"

	"github.com/pastenet/paste/internal/redisd/resp"
)

// login checks a password; the only user is "default".
func (c *Client) login(user, password []byte) bool {
	same := subtle.ConstantTimeCompare(password, []byte(c.s.Password)) == 1
	if string(user) != "default" || c.s.Password != "" && !same {
		c.R.Error(errWrongPass)
		return false
	}
	c.authed = true
	return true
}

func auth(c *Client, a [][]byte) {
	switch {
	case len(a) > 3:
		c.R.Error(errSyntax)
	case len(a) == 2 && c.s.Password == "":
		c.R.Error("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
	case len(a) == 2 && c.login([]byte("default"), a[1]), len(a) == 3 && c.login(a[1], a[2]):
		c.R.OK()
	}
}

func hello(c *Client, a [][]byte) {
	v3 := c.R.V3
	if len(a) > 1 {
		n, ok := resp.ParseInt(a[1])
		if !ok {
			c.R.Error("ERR Protocol version is not an integer or out of range")
			return
		}
		if n != 2 && n != 3 {
			c.R.Error("NOPROTO unsupported protocol version")
			return
		}
		v3 = n == 3
	}
	var name []byte
	for i := 2; i < len(a); i++ {
		switch left := len(a) - i - 1; {
		case is(a[i], "AUTH") && left >= 2:
			if !c.login(a[i+1], a[i+2]) {
				return
			}
			i += 2
		case is(a[i], "SETNAME") && left >= 1:
			if name = a[i+1]; !validName(name) {
				c.R.Error(errName)
				return
			}
			i++
		default:
			c.R.Error(fmt.Sprintf("ERR Syntax error in HELLO option '%s'", a[i]))
			return
		}
	}
	if !c.authed {
		c.R.Error("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
		return
	}
	if name != nil {
		c.name = string(name)
	}
	c.R.V3 = v3
	c.R.Map(7)
	c.R.Text("server")
	c.R.Text("redis")
	c.R.Text("version")
	c.R.Text(Version)
	c.R.Text("proto")
	if v3 {
		c.R.Int(3)
	} else {
		c.R.Int(2)
	}
	c.R.Text("id")
	c.R.Int(c.id)
	c.R.Text("mode")
	c.R.Text("standalone")
	c.R.Text("role")
	c.R.Text("master")
	c.R.Text("modules")
	c.R.Array(0)
}
