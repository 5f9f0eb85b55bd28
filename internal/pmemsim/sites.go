package pmemsim

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Call is one call that makes something durable, or orders it: of a domain, or
// of the operating system.
type Call struct {
	Op     string // "flush", "order", "fence"; the system call
	Region string // that Memory.Region gave, of a fence the one flushed last

	stack []string // "dir/file.go:12" of all callers, innermost first
}

// Through reports whether the call was made from that line of source, directly
// or by what the line called.
func (c Call) Through(line string) bool { return slices.Contains(c.stack, line) }

// lines caches what a program counter stands for: several lines, innermost
// first, where calls were inlined.
var lines sync.Map

type place struct {
	lines  []string
	domain bool // in a method of a domain
}

// stack lists the callers, innermost first. Those of a domain's methods are
// left out of a system call's: what these are good for, a Memory shows.
func stack(systemCall bool) []string {
	var pcs [24]uintptr
	var all []string
	in := false
	for _, pc := range pcs[:runtime.Callers(3, pcs[:])] {
		at, ok := lines.Load(pc)
		if !ok {
			at = placeOf(pc)
			lines.Store(pc, at)
		}
		p := at.(place)
		if systemCall && in && !p.domain {
			break
		}
		in = p.domain
		all = append(all, p.lines...)
	}
	return all
}

func placeOf(pc uintptr) (p place) {
	frames := runtime.CallersFrames([]uintptr{pc})
	for {
		f, more := frames.Next()
		p.lines = append(p.lines, lineName(f.File, f.Line))
		p.domain = strings.Contains(f.Function, "Domain).")
		if !more {
			return p
		}
	}
}

// lineName keeps the last directory, which is the package's.
func lineName(file string, line int) string {
	return filepath.Base(filepath.Dir(file)) + "/" + filepath.Base(file) + ":" + strconv.Itoa(line)
}

// site is a place in the source that makes something durable.
type site struct {
	line string // as in Call.Through
	text string // "writeHeadCopy: dom.Fence"
	fn   string // "(*Log).Append"
}

// durable are the names of functions that make something durable or order it,
// and how many arguments they take; -1 any number. A bufio.Writer's Flush has
// none.
var durable = map[string][]int{
	"Flush": {1, 2}, "CopyNT": {2}, "Order": {0}, "Fence": {0}, "Persist": {1, 2},
	"FlushSum": {2}, "CopySum": {3}, "flushSum": {-1}, "copySum": {-1}, "sumPayload": {-1}, "flushSumRange": {-1}, "copySumLines": {-1},
	"fence": {-1}, "flushRange": {-1}, "copyLinesNT": {-1},
	"flushCLWB": {-1}, "flushCLFLUSHOPT": {-1}, "flushCLFLUSH": {-1}, "flushCVAP": {-1}, "flushCVAC": {-1},
	"flushSumCLWB": {-1}, "flushSumCVAP": {-1}, "flushSumCVAC": {-1}, "copySumNT": {-1}, "copySumCVAP": {-1}, "copySumCVAC": {-1},
	"Sync": {0}, "syncDir": {-1}, "settle": {-1}, "WriteAt": {2},
	"Fsync": {-1}, "Fdatasync": {-1}, "Msync": {-1}, "SyncFileRange": {-1}, "Syncfs": {-1}, "Fadvise": {-1}, "Pwrite": {-1}, "Pwritev2": {-1},
}

// systemCalls are those of them that a call with their name makes, see FS.Call.
var systemCalls = []string{"write", "fdatasync", "fsync", "msync", "fadvise"}

// sites finds all places in the Go files that the patterns match, tests aside.
func sites(patterns ...string) (found []site, err error) {
	fset := token.NewFileSet()
	for _, p := range patterns {
		files, err := filepath.Glob(p)
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("no files %s: %v", p, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			abs, err := filepath.Abs(name)
			if err != nil {
				return nil, err
			}
			file, err := parser.ParseFile(fset, abs, nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
					found = append(found, sitesIn(fset, f)...)
				}
			}
		}
	}
	return found, nil
}

func sitesIn(fset *token.FileSet, f *ast.FuncDecl) (found []site) {
	fn := f.Name.Name
	if f.Recv != nil {
		fn = typeName(f.Recv.List[0].Type) + "." + fn
	}
	ast.Inspect(f.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		text := types.ExprString(call.Fun)
		name := text[strings.LastIndexByte(text, '.')+1:]
		if (name == "change" || name == "system") && len(call.Args) > 0 {
			// What is called in the function literal is this site.
			lit, ok := call.Args[0].(*ast.BasicLit)
			if !ok {
				return true
			}
			if !slices.Contains(systemCalls, strings.Trim(lit.Value, `"`)) {
				return false
			}
			text += "(" + lit.Value + ")"
		} else if args := durable[name]; !slices.Contains(args, -1) && !slices.Contains(args, len(call.Args)) {
			return true
		}
		at := fset.Position(call.Lparen)
		found = append(found, site{lineName(at.Filename, at.Line), fn + ": " + text, fn})
		return name != "change" && name != "system"
	})
	return found
}

func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return "(*" + typeName(e.X) + ")"
	case *ast.Ident:
		return e.Name
	}
	return "?"
}
