// Package inetsum computes the checksum of IP, TCP and UDP: the complement of a
// ones'-complement sum of 16-bit words (RFC 1071).
package inetsum

import "encoding/binary"

// Add adds the words of b to a sum. An odd byte at the end is the upper half of a word.
func Add(sum uint64, b []byte) uint64 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		sum += uint64(b[0]) << 8
	}
	return sum
}

// Fold brings a sum into 16 bits.
func Fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
