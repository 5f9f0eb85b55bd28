package bpf_test

import (
	"context"
	"fmt"
	"log"

	"github.com/pastenet/paste/bpf"
)

// Segments to port 8080 with 256 bytes of payload or more go to the AF_XDP socket
// of their queue, once there is one (Steer.SetSocket); everything else, and
// everything until then, is received by the kernel. It needs root.
func Example() {
	steer, err := bpf.AttachSteer(context.Background(), bpf.SteerOptions{NIC: "eth0"})
	if err != nil {
		log.Fatal(err)
	}
	defer steer.Close() // the NIC is as before
	if err := steer.AddPort(8080, 256); err != nil {
		log.Fatal(err)
	}
	counters, err := steer.Counters()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("attached in %s mode: %d segments had no socket yet\n", steer.Info().Mode, counters["pass_no_socket"])
}
