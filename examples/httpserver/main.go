// Httpserver is an ordinary net/http server on PASTE's rings: all that differs from one
// on package net is where its listener comes from.
//
//	httpserver -nic eth0 -listen 10.0.0.1:8080
//	httpserver -listen :8443 -tls-cert cert.pem -tls-key key.pem    # HTTP/2, too
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/ringnet"
)

func main() {
	var o pasteapi.Options
	flag.StringVar(&o.NIC, "nic", "", "interface to receive from")
	flag.TextVar(&o.Receive, "receive", o.Receive, "ways in: auto, steered or copied")
	addr := flag.String("listen", "127.0.0.1:8080", "address to listen on")
	cert := flag.String("tls-cert", "", "certificate, to speak TLS")
	key := flag.String("tls-key", "", "its key")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	http.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s, by %s\n", r.RemoteAddr, r.Proto)
	})
	http.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	http.Handle("GET /files/", http.StripPrefix("/files/", http.FileServer(http.Dir("."))))

	// With package net: l, err := net.Listen("tcp", *addr)
	l, err := ringnet.Listen(ctx, "tcp", *addr, o)
	if err != nil {
		log.Fatal(err)
	}
	log.Print("listening on ", l.Addr())
	var srv http.Server
	ended := make(chan error)
	context.AfterFunc(ctx, func() { ended <- srv.Shutdown(context.Background()) })
	if *cert != "" {
		err = srv.ServeTLS(l, *cert, *key)
	} else {
		err = srv.Serve(l)
	}
	if ctx.Err() == nil {
		log.Fatal(err)
	}
	if err := <-ended; err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
