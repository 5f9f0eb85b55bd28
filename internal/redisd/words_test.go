package redisd

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/redisd/resp"
)

func splitLine(t testing.TB, line string) (args []string) {
	words, ok := resp.SplitWords([]byte(line), nil)
	qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%s", line))
	for _, w := range words {
		args = append(args, string(w))
	}
	return args
}
