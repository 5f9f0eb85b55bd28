package serve

import (
	"encoding/json"
	"maps"

	"github.com/pastenet/paste/pasteapi"
)

// app is what the server tells `pastectl status`: the counters of all of its parts, by
// the names that they have in JSON.
func (s *service) app() pasteapi.App {
	var e Event
	s.describe(&e)
	a := pasteapi.App{Name: s.name, URL: s.url(), Counters: map[string]uint64{}}
	if e.HTTP != nil {
		maps.Copy(a.Counters, countersOf(e.HTTP))
	}
	if e.Redis != nil {
		maps.Copy(a.Counters, countersOf(e.Redis))
	}
	if e.KV != nil {
		kv := countersOf(e.KV)
		if s.name == "redis" {
			delete(kv, "keys") // of the tree, which has more than one for a key of Redis
		}
		maps.Copy(a.Counters, kv)
	}
	return a
}

// countersOf makes a map of a struct of counters.
func countersOf(stats any) map[string]uint64 {
	counters := map[string]uint64{}
	if b, err := json.Marshal(stats); err == nil {
		_ = json.Unmarshal(b, &counters) // a field that is no number is left out
	}
	return counters
}
