package main

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/ringnet"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestGRPC: calls and streams at the same time, of small and of large messages, through
// rings at both ends; and the server ends in order.
func TestGRPC(t *testing.T) {
	n, err := ringnet.Open(context.Background(), pasteapi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	l, err := n.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	cc, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return n.DialContext(ctx, "tcp", addr) }))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(2)
		go func() { defer wg.Done(); calls(t, cc, i) }()
		go func() { defer wg.Done(); stream(t, cc, i) }()
	}
	wg.Wait()
	h, err := grpc_health_v1.NewHealthClient(cc).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || h.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v %v", h, err)
	}
	if err := cc.Close(); err != nil {
		t.Error(err)
	}
	s.GracefulStop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func message(i, n int) []byte { return bytes.Repeat([]byte{byte(i), byte(n)}, 1+n*n*500) }

func calls(t *testing.T, cc *grpc.ClientConn, i int) {
	for n := range 50 {
		sent := message(i, n)
		var got wrapperspb.BytesValue
		if err := cc.Invoke(context.Background(), "/paste.Echo/Say", wrapperspb.Bytes(sent), &got); err != nil {
			t.Error(err)
			return
		}
		if !bytes.Equal(got.Value, sent) {
			t.Errorf("%d bytes came back for %d", len(got.Value), len(sent))
		}
	}
}

func stream(t *testing.T, cc *grpc.ClientConn, i int) {
	s, err := cc.NewStream(context.Background(), &echo.Streams[0], "/paste.Echo/Chat")
	if err != nil {
		t.Error(err)
		return
	}
	for n := range 50 {
		sent := message(i, n)
		var got wrapperspb.BytesValue
		if err := s.SendMsg(wrapperspb.Bytes(sent)); err != nil {
			t.Error(err)
			return
		}
		if err := s.RecvMsg(&got); err != nil {
			t.Error(err)
			return
		}
		if !bytes.Equal(got.Value, sent) {
			t.Errorf("%d bytes came back for %d", len(got.Value), len(sent))
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Error(err)
	}
	if err := s.RecvMsg(new(wrapperspb.BytesValue)); err == nil {
		t.Error("the stream has no end")
	}
}
