// Command crash is the client that survives the machine: on the host it loads
// servers in the guest, notes in a book what was acknowledged, kills the
// machine in the middle of that, and in the guest's next life compares the
// pools with the book.
//
//	crash ports N                              print N free TCP ports
//	crash load -book FILE -kill PID NAME=ADDR...
//	crash verify -book FILE NAME=POOL...
//	crash uploads TCP-ADDR UDP-ADDR            send until killed
//	crash verify-uploads POOL                  compare all records with what uploads sent
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("want ports, load, verify, uploads or verify-uploads")
	}
	f := flag.NewFlagSet(args[0], flag.ExitOnError)
	book := f.String("book", "book", "file with what was acknowledged")
	kill := f.Int("kill", 0, "process to kill")
	acks := f.Uint64("acks", 500, "writes that each target has acknowledged by then, at least")
	f.Parse(args[1:])
	switch args[0] {
	case "ports":
		n, err := strconv.Atoi(f.Arg(0))
		if err != nil {
			return err
		}
		return ports(n)
	case "load":
		targets, err := pairs(f.Args())
		if err != nil {
			return err
		}
		return load(targets, *book, *kill, *acks)
	case "verify":
		targets, err := pairs(f.Args())
		if err != nil {
			return err
		}
		return verify(targets, *book)
	case "uploads":
		if f.NArg() != 2 {
			return errors.New("uploads wants a TCP and a UDP address")
		}
		return uploads(f.Arg(0), f.Arg(1))
	case "verify-uploads":
		return verifyUploads(f.Arg(0))
	}
	return fmt.Errorf("unknown command %s", args[0])
}

// pair is NAME=VALUE.
type pair struct{ name, value string }

func pairs(args []string) (p []pair, err error) {
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		if !ok {
			return nil, fmt.Errorf("%s is not NAME=VALUE", a)
		}
		p = append(p, pair{name, value})
	}
	if len(p) == 0 {
		return nil, errors.New("no targets")
	}
	return p, nil
}

// ports prints ports that are all free at the same time.
func ports(n int) error {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		fmt.Println(l.Addr().(*net.TCPAddr).Port)
	}
	return nil
}
