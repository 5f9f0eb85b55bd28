//go:build !invariants

package pasteapi

// invariants has every sync look whether each frame is in exactly one place.
const invariants = false
