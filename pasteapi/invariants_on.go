//go:build invariants

package pasteapi

const invariants = true
