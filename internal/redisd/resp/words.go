package resp

// SplitWords splits a line as redis-cli does: words between white space, which
// may be quoted as a whole, with escapes in double quotes. ok is false if quotes
// do not end where a word does.
func SplitWords(line []byte, words [][]byte) (_ [][]byte, ok bool) {
	for i := 0; ; {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		if i == len(line) {
			return words, true
		}
		var word []byte
		var good bool
		if word, i, good = oneWord(line, i); !good {
			return words, false
		}
		words = append(words, word)
	}
}

func isSpace(c byte) bool {
	return c == ' ' || c >= '\t' && c <= '\r' || c == 0
}

// oneWord reads the word at i and returns where it ends.
func oneWord(line []byte, i int) (word []byte, end int, ok bool) {
	word = []byte{}
	for i < len(line) && !isSpace(line[i]) {
		switch c := line[i]; c {
		case '"', '\'':
			if word, i, ok = quoted(line, i+1, c, word); !ok {
				return nil, i, false
			}
			if i < len(line) && !isSpace(line[i]) {
				return nil, i, false
			}
			return word, i, true
		default:
			word = append(word, c)
			i++
		}
	}
	return word, i, true
}

// quoted reads up to the closing quote q and returns what is behind it.
func quoted(line []byte, i int, q byte, word []byte) (_ []byte, end int, ok bool) {
	for i < len(line) {
		c := line[i]
		switch {
		case c == q:
			return word, i + 1, true
		case c == '\\' && q == '\'' && i+1 < len(line) && line[i+1] == '\'':
			word = append(word, '\'')
			i += 2
		case c == '\\' && q == '"' && i+3 < len(line) && line[i+1] == 'x' && hex(line[i+2]) >= 0 && hex(line[i+3]) >= 0:
			word = append(word, byte(hex(line[i+2])<<4|hex(line[i+3])))
			i += 4
		case c == '\\' && q == '"' && i+1 < len(line):
			word = append(word, escaped(line[i+1]))
			i += 2
		default:
			word = append(word, c)
			i++
		}
	}
	return nil, i, false
}

func escaped(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
