// Package bpf holds the BPF programs of the datapath.
package bpf
