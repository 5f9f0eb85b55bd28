// Package cpupin ties threads to CPUs.
package cpupin

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Try finds out whether the process can have the CPUs, on a thread that ends with
// it.
func Try(cpus []int) error {
	if len(cpus) == 0 {
		return nil
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		var err error
		for _, cpu := range cpus {
			err = errors.Join(err, Pin(cpu))
		}
		result <- err
	}()
	return <-result
}

// Pin ties the calling thread to a CPU.
func Pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	switch err := unix.SchedSetaffinity(0, &set); {
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("pin thread to cpu %d: there is no such CPU online that this process may use; /sys/devices/system/cpu/online lists them", cpu)
	case err != nil:
		return fmt.Errorf("pin thread to cpu %d: %w", cpu, err)
	}
	return nil
}
