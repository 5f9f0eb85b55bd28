package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pastenet/paste/internal/loadgen"
)

// Nginx is nginx with one process (rpc, wal). It stores a body by PUT: in a file of its own,
// which then replaces the one of the connection before. It does not wait for the disk, so what
// it has answered is as safe as on the tmpfs that everybody writes to here, and not more: a killed
// process loses nothing, a machine without power does. And a file is no log: only the
// last body of a connection is kept, in no order with others.
const Nginx = "nginx"

var errNoNginx = errors.New("nginx is not installed: install it, or leave it out of the contenders")

// longestReturn is the longest response that is in the configuration; a longer one is a file.
const longestReturn = 2048

// nginxConfig is all that is asked of it; dir is for its files.
func nginxConfig(c *candidate) string {
	root := filepath.Join(c.pool, "data")
	location := fmt.Sprintf("return 200 %q;", strings.Repeat("x", c.responseBytes()))
	switch {
	case c.cfg.Workload == loadgen.WAL:
		location = fmt.Sprintf("root %s; dav_methods PUT;", root)
	case c.responseBytes() > longestReturn:
		location = fmt.Sprintf("root %s; index index; open_file_cache max=16;", root)
	}
	return fmt.Sprintf(`daemon off;
master_process off; # one process, which ends when it is told
error_log stderr;
pid %[1]s/pid;
worker_rlimit_nofile 65536;
events { use epoll; worker_connections 32768; multi_accept on; }
http {
	access_log off;
	server_tokens off;
	tcp_nodelay on;
	keepalive_timeout 1h;
	keepalive_requests 1000000000;
	client_max_body_size 0;
	client_body_buffer_size %[2]d;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	default_type text/plain;
	server {
		listen %[3]s backlog=4096;
		location / { %[4]s }
	}
}
`, c.pool, max(16<<10, c.cfg.Size+4096), c.addr, location)
}

// nginxCommand says that it begins, as nginx itself says nothing.
func nginxCommand(c *candidate) ([]string, error) {
	path, err := exec.LookPath(Nginx)
	if err != nil {
		return nil, errNoNginx
	}
	conf := filepath.Join(c.pool, "conf")
	root := filepath.Join(c.pool, "data")
	err = errors.Join(os.MkdirAll(root, 0o700), os.WriteFile(conf, []byte(nginxConfig(c)), 0o600),
		os.WriteFile(filepath.Join(root, "index"), bytes.Repeat([]byte("x"), c.responseBytes()), 0o600))
	if err != nil {
		return nil, err
	}
	return []string{"/bin/sh", "-c", `echo begins; exec "$0" -e stderr -c "$1"`, path, conf}, nil
}
