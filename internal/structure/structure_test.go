// Package structure holds the code to the limits within which it can be read: in
// pasteapi and the packages below it, which are the heart of the project, and
// which everything else calls.
package structure

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/tools/go/packages"
)

const (
	maxFileLines = 350
	maxFuncLines = 70
	maxFields    = 20
)

func load(t *testing.T) []*packages.Package {
	t.Helper()
	pkgs, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedDeps | packages.NeedImports,
		Dir:  "../..",
	}, "./pasteapi/...")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(len(pkgs) > 5), qt.Commentf("%d packages", len(pkgs)))
	for _, p := range pkgs {
		for _, e := range p.Errors {
			t.Fatal(e)
		}
	}
	return pkgs
}

// TestSizes: files, functions and structs can be taken in at one sitting.
func TestSizes(t *testing.T) {
	for _, p := range load(t) {
		for _, f := range p.Syntax {
			lines := p.Fset.Position(f.FileEnd).Line
			name := p.PkgPath + "/" + filepath.Base(p.Fset.Position(f.Pos()).Filename)
			qt.Check(t, qt.IsTrue(lines <= maxFileLines), qt.Commentf("%s has %d lines, the limit is %d", name, lines, maxFileLines))
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					l := p.Fset.Position(n.End()).Line - p.Fset.Position(n.Pos()).Line + 1
					qt.Check(t, qt.IsTrue(l <= maxFuncLines), qt.Commentf("%s: %s has %d lines, the limit is %d", name, n.Name.Name, l, maxFuncLines))
				case *ast.StructType:
					qt.Check(t, qt.IsTrue(n.Fields.NumFields() <= maxFields),
						qt.Commentf("%s: a struct of %d fields, the limit is %d", p.Fset.Position(n.Pos()), n.Fields.NumFields(), maxFields))
				}
				return true
			})
		}
	}
}

// TestCallsGoOneWay: within a package the calls between files have no cycle.
func TestCallsGoOneWay(t *testing.T) {
	for _, p := range load(t) {
		calls := fileCalls(p)
		if cycle := findCycle(calls); cycle != nil {
			t.Errorf("%s: files call each other in a circle:\n\t%s", p.PkgPath, strings.Join(cycle, "\n\t"))
		}
	}
}

// fileCalls says which file of a package uses functions of which others, and one
// example of each.
func fileCalls(p *packages.Package) map[string]map[string]string {
	file := func(pos token.Pos) string { return filepath.Base(p.Fset.Position(pos).Filename) }
	calls := map[string]map[string]string{}
	for _, f := range p.Syntax {
		from := file(f.Pos())
		calls[from] = map[string]string{}
		ast.Inspect(f, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if !ok {
				return true
			}
			fn, ok := p.TypesInfo.Uses[id].(*types.Func)
			if !ok || fn.Pkg() != p.Types || isInterface(fn) {
				return true
			}
			if to := file(fn.Origin().Pos()); to != from {
				calls[from][to] = fmt.Sprintf("%s: %s calls %s of %s", p.Fset.Position(id.Pos()), from, fn.Name(), to)
			}
			return true
		})
	}
	return calls
}

// isInterface says whether a method is that of an interface: such an arrow is the
// caller's own.
func isInterface(fn *types.Func) bool {
	recv := fn.Signature().Recv()
	return recv != nil && types.IsInterface(recv.Type())
}

// findCycle returns the calls of one cycle, or nil.
func findCycle(calls map[string]map[string]string) []string {
	const (
		open = 1
		done = 2
	)
	state := map[string]int{}
	var path, found []string
	var visit func(file string)
	visit = func(file string) {
		state[file] = open
		path = append(path, file)
		for _, to := range slices.Sorted(maps.Keys(calls[file])) {
			if found != nil {
				return
			}
			if state[to] == open {
				cycle := append(path[slices.Index(path, to):], to)
				for i := range len(cycle) - 1 {
					found = append(found, calls[cycle[i]][cycle[i+1]])
				}
				return
			}
			if state[to] == 0 {
				visit(to)
			}
		}
		path = path[:len(path)-1]
		state[file] = done
	}
	for _, file := range slices.Sorted(maps.Keys(calls)) {
		if state[file] == 0 && found == nil {
			visit(file)
		}
	}
	return found
}

// TestFindCycle: the search finds what it is there for.
func TestFindCycle(t *testing.T) {
	qt.Check(t, qt.IsNil(findCycle(map[string]map[string]string{"a": {"b": "ab", "c": "ac"}, "b": {"c": "bc"}, "c": {}})))
	qt.Check(t, qt.DeepEquals(findCycle(map[string]map[string]string{"a": {"b": "ab"}, "b": {"c": "bc"}, "c": {"b": "cb"}}), []string{"bc", "cb"}))
}
