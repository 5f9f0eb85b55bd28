// Package vm holds what scripts/vm runs in a virtual machine: tests of a pool's
// life, on the backing that PASTE_TEST_POOL and PASTE_TEST_BACKING name (a path,
// and what Backing.String says of it), the scripts of the guest, and in load the
// client that survives the machine.
//
// Without those variables the pool is a file on tmpfs, so that the tests
// themselves are tested everywhere.
package vm
