package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdJSON: json FILE WANT-FILE compares a JSON output with the shape in WANT-FILE: the same keys,
// all of them, with the same types. A string in WANT-FILE that begins with ~ is a regular
// expression for the value; "number", "time" and "any" stand for a type; every other value must be
// equal. An array with one element in WANT-FILE stands for any number of elements of the same
// shape.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: json FILE WANT-FILE")
	}
	var got, want any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &got); err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
	if err := json.Unmarshal([]byte(ts.ReadFile(args[1])), &want); err != nil {
		ts.Fatalf("%s: %v", args[1], err)
	}
	if problems := compareShape("", got, want); len(problems) > 0 {
		ts.Fatalf("%s is not as documented:\n%s", args[0], strings.Join(problems, "\n"))
	}
}

// compareShape lists the differences of got from the shape want.
func compareShape(at string, got, want any) []string {
	switch want := want.(type) {
	case map[string]any:
		return compareObject(at, got, want)
	case []any:
		return compareArray(at, got, want)
	case string:
		if !matches(got, want) {
			return []string{fmt.Sprintf("%s: got %v, want %s", at, got, want)}
		}
	default:
		if got != want {
			return []string{fmt.Sprintf("%s: got %v, want %v", at, got, want)}
		}
	}
	return nil
}

func compareObject(at string, got any, want map[string]any) []string {
	object, ok := got.(map[string]any)
	if !ok {
		return []string{fmt.Sprintf("%s: got %v, want an object", at, got)}
	}
	var problems []string
	for key, value := range want {
		member, ok := object[key]
		if !ok {
			problems = append(problems, fmt.Sprintf("%s.%s: missing", at, key))
			continue
		}
		problems = append(problems, compareShape(at+"."+key, member, value)...)
	}
	for key := range object {
		if _, ok := want[key]; !ok {
			problems = append(problems, fmt.Sprintf("%s.%s: not documented", at, key))
		}
	}
	slices.Sort(problems)
	return problems
}

func compareArray(at string, got any, want []any) []string {
	array, ok := got.([]any)
	if !ok || len(want) != 1 && len(array) != len(want) {
		return []string{fmt.Sprintf("%s: got %v, want an array of %d", at, got, len(want))}
	}
	var problems []string
	for i, element := range array {
		problems = append(problems, compareShape(fmt.Sprintf("%s[%d]", at, i), element, want[min(i, len(want)-1)])...)
	}
	return problems
}

// matches reports whether a value fits a word or expression.
func matches(got any, want string) bool {
	text, isString := got.(string)
	switch want {
	case "any":
		return got != nil
	case "number":
		_, ok := got.(float64)
		return ok
	case "time":
		return isString && regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`).MatchString(text)
	}
	if expression, ok := strings.CutPrefix(want, "~"); ok {
		return isString && regexp.MustCompile("^(?s:"+expression+")$").MatchString(text)
	}
	return isString && text == want
}
