package pmemsim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
)

// Scenario makes a thing durable, crashes, and returns the first promise that
// was broken. What happens depends on seed only; drop, if not nil, is to be
// asked about every call, see Memory.Drop.
type Scenario func(seed uint64, drop func(Call) bool) error

// Mutation leaves out every flush, fence and sync of some source files in turn,
// and of each one those for one part of the pool only: one of the scenarios must
// notice.
type Mutation struct {
	Files     []string // patterns, of filepath.Glob
	Scenarios map[string]Scenario
	// Untested says why no scenario can tell whether a place does anything, by
	// its function, "(*T).F", or by function and call, "(*T).F: x.Flush".
	Untested map[string]string
}

// mutant is what is left out.
type mutant struct {
	site
	op, region string
}

func (m mutant) drop(c Call) bool {
	return c.Op == m.op && c.Region == m.region && c.Through(m.line)
}

// observeSeeds are enough to come by every site, and seeds to notice that it is
// missing.
const (
	observeSeeds = 50
	seeds        = 5000
)

// Run fails the test for every mutant that survives, for every place in the
// files that no scenario comes by, and if a promise is broken although nothing
// is left out. It logs a table of what killed which.
func (m Mutation) Run(t *testing.T) {
	t.Helper()
	all, err := sites(m.Files...)
	if err != nil {
		t.Fatal(err)
	}
	if raceDetector {
		return // the simulations use one goroutine, and get many times slower
	}
	mutants := m.observe(t, all)
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	used := map[string]bool{}
	total := 0
	for _, s := range all {
		if key, why := m.untested(s); why != "" {
			used[key] = true
			fmt.Fprintf(w, "%s\t%s\t\tnot tested: %s\n", s.line, s.text, why)
			continue
		}
		of := mutants[s]
		if len(of) == 0 {
			t.Errorf("%s: %s: no scenario comes by; what shows that it is needed?", s.line, s.text)
		}
		for _, mu := range slices.SortedFunc(maps.Keys(of), func(a, b mutant) int { return strings.Compare(a.op+a.region, b.op+b.region) }) {
			total++
			killer := m.kill(mu, of[mu])
			if killer == "" {
				t.Errorf("%s: %s: nothing notices that the %s of %q is missing", s.line, s.text, mu.op, mu.region)
				killer = "SURVIVES"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.line, s.text, strings.TrimSpace(mu.op+" "+mu.region), killer)
		}
	}
	for key := range m.Untested {
		if !used[key] {
			t.Errorf("%s is listed as untested, and makes nothing durable", key)
		}
	}
	w.Flush()
	t.Logf("%d places, %d mutants\n%s", len(all), total, table.String())
}

func (m Mutation) untested(s site) (key, why string) {
	for _, key := range []string{s.text, s.fn} {
		if why, ok := m.Untested[key]; ok {
			return key, why
		}
	}
	return "", ""
}

// observe finds out which scenarios come by which site.
func (m Mutation) observe(t *testing.T, all []site) map[site]map[mutant][]string {
	found := map[site]map[mutant][]string{}
	at := map[string][]site{}
	for _, s := range all {
		at[s.line] = append(at[s.line], s)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Scenarios)) {
		seen := map[mutant]bool{}
		for seed := range uint64(observeSeeds) {
			err := m.Scenarios[name](seed, func(c Call) bool {
				for _, line := range c.stack {
					for _, s := range at[line] {
						seen[mutant{s, c.Op, c.Region}] = true
					}
				}
				return false
			})
			if err != nil {
				t.Errorf("%s, seed %d: %v", name, seed, err)
			}
		}
		for mu := range seen {
			if found[mu.site] == nil {
				found[mu.site] = map[mutant][]string{}
			}
			found[mu.site][mu] = append(found[mu.site][mu], name)
		}
	}
	return found
}

// kill returns the scenario that notices that something is missing.
func (m Mutation) kill(mu mutant, scenarios []string) string {
	for seed := range uint64(seeds) {
		for _, name := range scenarios {
			if m.Scenarios[name](seed, mu.drop) != nil {
				return fmt.Sprintf("%s, seed %d", name, seed)
			}
		}
	}
	return ""
}
