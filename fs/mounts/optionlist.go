package mounts

import "strings"

// SplitOptions splits a list of mount options at its commas, as mount(8) does. A value with commas
// is in double quotes (kek="a,b"), or has a backslash before each comma (kek=a\,b). The quotes and
// backslashes are removed. A backslash before a backslash or a quote stands for that character;
// before any other character a backslash stands for itself. closed is false where a quote has no
// end: the last value then holds the rest of the list.
func SplitOptions(list string) (options []string, closed bool) {
	var option strings.Builder
	quoted := false
	for i := 0; i < len(list); i++ {
		c := list[i]
		switch {
		case c == '\\' && i+1 < len(list) && strings.IndexByte(`,\"`, list[i+1]) >= 0:
			i++
			option.WriteByte(list[i])
		case c == '"' && (quoted || i > 0 && list[i-1] == '='):
			quoted = !quoted
		case c == ',' && !quoted:
			options = append(options, option.String())
			option.Reset()
		default:
			option.WriteByte(c)
		}
	}
	return append(options, option.String()), !quoted
}

// EscapeOption writes a value in a form from which SplitOptions gives the same value.
func EscapeOption(value string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`, `"`, `\"`).Replace(value)
}
