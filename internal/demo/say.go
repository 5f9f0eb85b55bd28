package demo

import (
	"fmt"
	"strings"
)

// width of a line, in columns.
const width = 80

func (d *demo) title(text string) { fmt.Fprintf(d.Out, "\n== %s\n", text) }

func (d *demo) say(format string, args ...any) { d.wrap(fmt.Sprintf(format, args...), "") }

// show writes a command that can be copied.
func (d *demo) show(command string) { d.wrap(command, " \\") }

// wrap writes a text of words in lines, all but the last of which end in more.
func (d *demo) wrap(text, more string) {
	line, indent := "", "   "
	for _, word := range strings.Split(text, " ") {
		switch {
		case line == "":
			line = word
		case len(indent)+len([]rune(line))+1+len([]rune(word))+len(more) > width:
			fmt.Fprintf(d.Out, "%s%s%s\n", indent, line, more)
			line, indent = word, "     "
		default:
			line += " " + word
		}
	}
	fmt.Fprintf(d.Out, "%s%s\n", indent, line)
}
