package layout

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestTableIsDocumented compares the table with docs/on-disk-format.md, a contract for other
// programs.
func TestTableIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/on-disk-format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "\n## Which files are encrypted\n")
	if !ok {
		t.Fatal("the section is missing")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	row := regexp.MustCompile(`(?m)^\| ([1-8]) \| (\w+)[^|]*\| (.*) \|$`)
	rows := row.FindAllStringSubmatch(section, -1)
	if len(rows) != len(builtin) {
		t.Fatalf("%d rules are documented, want %d", len(rows), len(builtin))
	}
	for i, r := range builtin {
		number, class := rows[i][1], rows[i][2]
		if number != strconv.Itoa(r.number) || class != r.class.String() {
			t.Errorf("rule %d, %v, is documented as %s, %s", r.number, r.class, number, class)
		}
		var want []string
		for _, quoted := range regexp.MustCompile("`[^`]+`").FindAllString(rows[i][3], -1) {
			want = append(want, documented(strings.Trim(quoted, "`"))...)
		}
		if r.packed {
			want = slices.DeleteFunc(want, func(p string) bool { return slices.Contains(compressors[:], p) })
		}
		patterns := r.patterns
		if r.rotated {
			patterns = append(slices.Clone(patterns), strings.ToLower(rotatedLog))
		}
		if !slices.Equal(patterns, want) {
			t.Errorf("rule %d has\n%q, documented are\n%q", r.number, r.patterns, want)
		}
	}
}

// documented are the globs of a documented pattern: N is 1 to 3 digits, D is 8.
func documented(pattern string) []string {
	if stem, ok := strings.CutSuffix(pattern, "N"); ok {
		return []string{stem + "[0-9]", stem + "[0-9][0-9]", stem + "[0-9][0-9][0-9]"}
	}
	if stem, ok := strings.CutSuffix(pattern, "D"); ok {
		return []string{stem + strings.Repeat("[0-9]", 8)}
	}
	return []string{strings.ToLower(pattern)}
}
