// Grpc is a gRPC server on PASTE's rings: google.golang.org/grpc as it is, on a listener of
// ringnet. It is a module of its own, as nobody who uses PASTE shall get gRPC with it.
//
//	go run . -nic eth0 -listen 10.0.0.1:50051
//
// It serves paste.Echo, whose methods have no generated code: Say answers a message with
// itself, and Chat each message of a stream; and gRPC's health service.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"os/signal"
	"syscall"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/ringnet"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func main() {
	var o pasteapi.Options
	flag.StringVar(&o.NIC, "nic", "", "interface to receive from")
	addr := flag.String("listen", "127.0.0.1:50051", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	l, err := ringnet.Listen(ctx, "tcp", *addr, o)
	if err != nil {
		log.Fatal(err)
	}
	log.Print("listening on ", l.Addr())
	s := newServer()
	context.AfterFunc(ctx, s.GracefulStop)
	if err := s.Serve(l); err != nil {
		log.Fatal(err)
	}
}

func newServer() *grpc.Server {
	s := grpc.NewServer()
	s.RegisterService(&echo, nil)
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	return s
}

var echo = grpc.ServiceDesc{
	ServiceName: "paste.Echo",
	Methods: []grpc.MethodDesc{{MethodName: "Say",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var m wrapperspb.BytesValue
			err := decode(&m)
			return &m, err
		}}},
	Streams: []grpc.StreamDesc{{StreamName: "Chat", Handler: chat, ServerStreams: true, ClientStreams: true}},
}

func chat(_ any, s grpc.ServerStream) error {
	for {
		var m wrapperspb.BytesValue
		if err := s.RecvMsg(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(&m); err != nil {
			return err
		}
	}
}
