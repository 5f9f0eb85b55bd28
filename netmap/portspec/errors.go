package portspec

import (
	"errors"
	"fmt"
	"strings"
)

// Error is what is wrong with a name.
type Error struct {
	Spec string // the name
	At   int    // byte at which it is, from 0; len(Spec) is its end
	Msg  string
	err  error // errors.ErrUnsupported, or nil
}

// Error is one line: the name, the character, counted from 1, and what is wrong.
func (e *Error) Error() string {
	return fmt.Sprintf("port name %q: character %d: %s", e.Spec, e.At+1, e.Msg)
}

// Unwrap is errors.ErrUnsupported for what is understood but not to be had.
func (e *Error) Unwrap() error { return e.err }

// Caret is three lines: the name, a mark below the character, what is wrong.
func (e *Error) Caret() string {
	// What a terminal might not show as one column is shown as a question mark.
	var name strings.Builder
	column := 0
	for i, r := range e.Spec {
		if i < e.At {
			column++
		}
		if r < ' ' || r > '~' {
			r = '?'
		}
		name.WriteRune(r)
	}
	return fmt.Sprintf("%s\n%s^\n%s", name.String(), strings.Repeat(" ", column), e.Msg)
}

// Explain is the drawing of an Error that err wraps, indented, or "".
func Explain(err error) string {
	e := new(Error)
	if !errors.As(err, &e) {
		return ""
	}
	return "  " + strings.ReplaceAll(e.Caret(), "\n", "\n  ")
}

func (p *parser) fail(at int, format string, args ...any) error {
	return &Error{Spec: p.text, At: at, Msg: fmt.Sprintf(format, args...)}
}

func (p *parser) refuse(at int, sentence string) error {
	return &Error{Spec: p.text, At: at, Msg: sentence, err: errors.ErrUnsupported}
}
