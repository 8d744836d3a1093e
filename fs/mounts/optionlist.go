package mounts

import "strings"

// SplitOptions splits a list of mount options at its commas, as mount(8) does: a value may
// be in double quotes, and hold commas then (kek="a,b"), or have a backslash before each
// comma (kek=a\,b). Quotes and such backslashes are taken off; a backslash before a
// backslash or a quote is one too, before anything else it stands for itself.
// closed is false where a quote has no end, and so took what follows into its value.
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

// EscapeOption writes a value so that SplitOptions gives it back.
func EscapeOption(value string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`, `"`, `\"`).Replace(value)
}
