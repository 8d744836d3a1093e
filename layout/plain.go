package layout

import "bytes"

// plainTOML refuses TOML without a use in settings: dotted keys, inline tables, strings over
// several lines, arrays in arrays in arrays. The file is parsed before the seal is checked, and
// the toml package takes gigabytes for 64 KiB of `a.a.a.…`; within these limits the package's
// time and memory grow with the length of the text. plainTOML takes less for a string than TOML
// does, so text outside a string here is outside for the toml package too.
func plainTOML(text []byte) error {
	p := plain{text: text, line: 1}
	for p.at < len(p.text) && p.reason == "" {
		p.step()
	}
	if p.reason != "" {
		return &SettingsError{Line: p.line, Reason: p.reason}
	}
	return nil
}

// maxBrackets lets `[[table]]` and an array of arrays through.
const maxBrackets = 2

// A plain is how far plainTOML is.
type plain struct {
	text     []byte
	at       int // the next byte
	line     int // from 1
	brackets int // open ones
	reason   string
}

// step takes one byte, string or comment.
func (p *plain) step() {
	c := p.text[p.at]
	p.at++
	switch c {
	case '\n':
		p.line++
	case '\r':
		if p.at == len(p.text) || p.text[p.at] != '\n' {
			p.reason = "carriage return without newline"
		}
	case '#':
		p.comment()
	case '"', '\'':
		p.str(c)
	case '.':
		p.reason = "a dot outside of a string: no key or value of the settings has one"
	case '{':
		p.reason = "inline table: no value of the settings is one"
	case '[':
		if p.brackets++; p.brackets > maxBrackets {
			p.reason = "arrays too deep in one another"
		}
	case ']':
		p.brackets--
	}
}

// comment skips to the end of the line; step judges a carriage return there.
func (p *plain) comment() {
	if n := bytes.IndexAny(p.text[p.at:], "\r\n"); n >= 0 {
		p.at += n
	} else {
		p.at = len(p.text)
	}
}

// str skips the rest of a string begun by quote.
func (p *plain) str(quote byte) {
	if bytes.HasPrefix(p.text[p.at:], []byte{quote, quote}) {
		p.reason = "string over several lines: write it on one"
		return
	}
	for p.at < len(p.text) && p.text[p.at] != '\n' && p.text[p.at] != '\r' {
		c := p.text[p.at]
		p.at++
		if c == quote {
			return
		}
		if c == '\\' && quote == '"' && p.at < len(p.text) && p.text[p.at] >= ' ' {
			p.at++
		}
	}
	p.reason = "string without end"
}
