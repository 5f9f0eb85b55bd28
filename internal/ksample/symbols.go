package ksample

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
)

// Symbols are functions of the running kernel, BPF programs included.
type Symbols struct {
	at    []uint64
	names []string
}

// ReadSymbols reads those that are there now.
func ReadSymbols() (*Symbols, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("read the kernel's symbols: %w", err)
	}
	defer f.Close()
	type symbol struct {
		at   uint64
		name string
	}
	var all []symbol
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) < 3 || !bytes.ContainsAny(fields[1], "tTwW") {
			continue
		}
		at, err := strconv.ParseUint(string(fields[0]), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("read the kernel's symbols: %w", err)
		}
		if at != 0 {
			all = append(all, symbol{at, string(fields[2])})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the kernel's symbols: %w", err)
	}
	if len(all) == 0 {
		return nil, errors.New("the kernel hides the addresses of its functions (sysctl kernel.kptr_restrict, or no root)")
	}
	slices.SortStableFunc(all, func(a, b symbol) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	s := new(Symbols)
	for _, sym := range all {
		s.at, s.names = append(s.at, sym.at), append(s.names, sym.name)
	}
	return s, nil
}

// Find is the function that an address is in, "" if it is in none.
func (s *Symbols) Find(ip uint64) string {
	i, exact := slices.BinarySearch(s.at, ip)
	if !exact {
		i--
	}
	if i < 0 {
		return ""
	}
	return s.names[i]
}
