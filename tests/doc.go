// Package tests holds the end-to-end suite: pastectl as a child process, real
// TCP clients (net/http, curl, wrk) and in-process ring applications, on veth
// pairs between network namespaces. It needs root and the tools that
// scripts/test installs; without one of them it fails, and says which. Only
// redis-server is left out where it is not installed.
//
// PASTE_KILL_ROUNDS=50 go test -run KillUnderLoad ./tests kills each kind of
// server fifty times.
package tests
