package command

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// section is one of INFO's.
type section struct {
	name   string
	common bool // it is given without being asked for
	lines  func(s *Server, add func(name string, value any))
}

var sections = []section{
	{"Server", true, infoServer},
	{"Clients", true, infoClients},
	{"Memory", true, infoMemory},
	{"Persistence", true, infoPersistence},
	{"Stats", true, infoStats},
	{"Replication", true, infoReplication},
	{"CPU", true, infoCPU},
	{"Modules", true, func(*Server, func(string, any)) {}},
	{"Commandstats", false, infoCommands},
	{"Errorstats", true, func(*Server, func(string, any)) {}},
	{"Cluster", true, func(_ *Server, add func(string, any)) { add("cluster_enabled", 0) }},
	{"Keyspace", true, infoKeyspace},
}

func info(c *Client, a [][]byte) {
	wanted := func(s section) bool {
		if len(a) == 1 {
			return s.common
		}
		for _, w := range a[1:] {
			if is(w, strings.ToUpper(s.name)) || is(w, "ALL") || is(w, "EVERYTHING") || is(w, "DEFAULT") && s.common {
				return true
			}
		}
		return false
	}
	var b strings.Builder
	for _, s := range sections {
		if !wanted(s) {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString("# " + s.name + "\r\n")
		s.lines(c.s, func(name string, value any) { fmt.Fprintf(&b, "%s:%v\r\n", name, value) })
	}
	c.R.Verbatim(b.String())
}

func infoServer(s *Server, add func(string, any)) {
	up := int(time.Since(s.since).Seconds())
	add("redis_version", Version)
	add("redis_mode", "standalone")
	add("server_name", "paste")
	add("os", runtime.GOOS)
	add("arch_bits", 64)
	add("process_id", os.Getpid())
	add("run_id", s.runID)
	add("tcp_port", s.Port)
	add("server_time_usec", time.Now().UnixMicro())
	add("uptime_in_seconds", up)
	add("uptime_in_days", up/86400)
}

func infoClients(s *Server, add func(string, any)) {
	blocked := 0
	for _, c := range s.clients {
		if c.block != nil {
			blocked++
		}
	}
	add("connected_clients", len(s.clients))
	add("maxclients", s.MaxConns)
	add("blocked_clients", blocked)
}

// memoryUse is how many bytes of the pool are in use, and how many it has.
func (s *Server) memoryUse() (used, all int64) {
	p := s.DB.Pool()
	all = int64(p.Frames()-p.FirstFrame()) * int64(p.FrameSize())
	return all - int64(p.Free())*int64(p.FrameSize()), all
}

func infoMemory(s *Server, add func(string, any)) {
	used, all := s.memoryUse()
	add("used_memory", used)
	add("used_memory_human", fmt.Sprintf("%.2fM", float64(used)/(1<<20)))
	add("used_memory_rss", residentBytes())
	add("maxmemory", all)
	add("maxmemory_human", fmt.Sprintf("%.2fM", float64(all)/(1<<20)))
	add("maxmemory_policy", "noeviction")
	add("mem_allocator", "pool")
}

// residentBytes is what the process has in memory, the pool included.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int64
	fmt.Sscan(string(b), &size, &resident)
	return resident * int64(os.Getpagesize())
}

func infoPersistence(s *Server, add func(string, any)) {
	st := s.DB.Stats()
	add("loading", 0)
	add("rdb_changes_since_last_save", 0)
	add("rdb_bgsave_in_progress", 0)
	add("rdb_last_save_time", time.Now().Unix())
	add("aof_enabled", 1)
	add("aof_rewrite_in_progress", 0)
	add("aof_last_write_status", "ok")
	add("pool", s.DB.Pool().Path())
	add("pool_durability", s.DB.Pool().Backing().Durability())
	add("pool_commits", st.Commits)
	add("pool_checkpoints", st.Checkpoints)
	add("pool_stalls", st.Stalls)
	add("pool_replayed", st.Replayed)
}

func infoStats(s *Server, add func(string, any)) {
	add("total_connections_received", s.Accepted)
	add("total_commands_processed", s.Commands)
	add("rejected_connections", s.Rejected)
	add("expired_keys", s.DB.Expired)
	add("evicted_keys", 0)
}

func infoReplication(_ *Server, add func(string, any)) {
	add("role", "master")
	add("connected_slaves", 0)
}

func infoCPU(_ *Server, add func(string, any)) {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return
	}
	add("used_cpu_sys", fmt.Sprintf("%d.%06d", u.Stime.Sec, u.Stime.Usec))
	add("used_cpu_user", fmt.Sprintf("%d.%06d", u.Utime.Sec, u.Utime.Usec))
}

func infoCommands(_ *Server, add func(string, any)) {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if n := table[name].calls; n > 0 {
			add("cmdstat_"+name, fmt.Sprintf("calls=%d", n))
		}
	}
}

func infoKeyspace(s *Server, add func(string, any)) {
	if n := s.DB.Len(); n > 0 {
		add("db0", fmt.Sprintf("keys=%d,expires=%d,avg_ttl=0", n, s.DB.Expires()))
	}
}
