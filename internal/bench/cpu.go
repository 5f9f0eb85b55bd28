package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// cpuTimes are the idle and total times of two CPUs, in ticks since boot.
type cpuTimes struct {
	idle, total [2]uint64
}

// readCPUTimes reads /proc/stat (proc_stat(5)).
func readCPUTimes(server, client int) (t cpuTimes, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return t, err
	}
	for i, cpu := range []int{server, client} {
		prefix := []byte("cpu" + strconv.Itoa(cpu) + " ")
		found := false
		for line := range bytes.Lines(b) {
			if !bytes.HasPrefix(line, prefix) {
				continue
			}
			found = true
			// user nice system idle iowait irq softirq steal; guest times are
			// contained in user.
			for j, f := range bytes.Fields(line)[1:] {
				if j > 7 {
					break
				}
				v, err := strconv.ParseUint(string(f), 10, 64)
				if err != nil {
					return t, fmt.Errorf("parse /proc/stat: %w", err)
				}
				t.total[i] += v
				if j == 3 || j == 4 {
					t.idle[i] += v
				}
			}
		}
		if !found {
			return t, fmt.Errorf("no CPU %d in /proc/stat", cpu)
		}
	}
	return t, nil
}

func (t cpuTimes) busySince(from cpuTimes) (server, client float64) {
	var v [2]float64
	for i := range v {
		// Idle time may step back a little (proc_stat(5)).
		total, idle := float64(t.total[i])-float64(from.total[i]), float64(t.idle[i])-float64(from.idle[i])
		if total > 0 {
			v[i] = min(max(1-idle/total, 0), 1)
		}
	}
	return v[0], v[1]
}

// pinProcess binds every thread of this process to a CPU, and with them those that
// they will make. release undoes it.
func pinProcess(cpu int) (release func(), err error) {
	var old, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return nil, fmt.Errorf("read CPU affinity: %w", err)
	}
	set.Set(cpu)
	if err := setAllThreads(&set); err != nil {
		return nil, fmt.Errorf("bind to CPU %d: %w", cpu, err)
	}
	return func() { _ = setAllThreads(&old) }, nil
}

func setAllThreads(set *unix.CPUSet) error {
	// Threads may appear meanwhile, made by one that wasn't bound yet.
	for range 2 {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			if err := unix.SchedSetaffinity(tid, set); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return nil
}
