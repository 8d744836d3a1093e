// Package docs checks docs/architecture.md against the code: the document names files,
// functions and floors, and each of them must exist.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "vmcryptfs"

// quoted matches a piece of code in a document's text.
var quoted = regexp.MustCompile("`[^`\n]+`")

// document gives docs/architecture.md.
func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section gives the part of a document below a heading.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, part, ok := strings.Cut(text, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("the section %q is missing", heading)
	}
	part, _, _ = strings.Cut(part, "\n## ")
	return part
}

// cells gives the cells of each row of the tables in a text, but for the heads.
func cells(text string) (rows [][]string) {
	head := true
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			head = true
			continue
		}
		if !head {
			row := strings.Split(strings.Trim(line, "|"), "|")
			for i := range row {
				row[i] = strings.TrimSpace(row[i])
			}
			rows = append(rows, row)
		}
		if strings.HasPrefix(line, "|-") || strings.HasPrefix(line, "|:") {
			head = false
		}
	}
	return rows
}

// names gives the quoted pieces of a text.
func names(text string) (list []string) {
	for _, q := range quoted.FindAllString(text, -1) {
		list = append(list, strings.Trim(q, "`"))
	}
	return list
}

// TestNames looks each `file.go: Name, Type.Name` of the document up in the code. A Name is a
// function, a type, a constant or a variable of that file. Type.Name is a method or a field. A
// piece with a slash and without a Name is a file or a directory.
func TestNames(t *testing.T) {
	t.Parallel()
	var libraries []string
	for _, row := range libraryRows(t) {
		libraries = append(libraries, names(row[0])...)
	}
	checked := 0
	for _, name := range names(document(t)) {
		file, declared, has := strings.Cut(name, ": ")
		if has && strings.HasSuffix(file, ".go") {
			known := declarations(t, file)
			for d := range strings.SplitSeq(declared, ", ") {
				checked++
				if !known[d] {
					t.Errorf("%s: %s has no %s", name, file, d)
				}
			}
			continue
		}
		if !strings.Contains(name, "/") || strings.ContainsAny(name, " <>*…") || strings.HasPrefix(name, "/") || slices.Contains(libraries, name) {
			continue
		}
		checked++
		if _, err := os.Stat(filepath.Join("..", name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if checked < 100 {
		t.Errorf("%d names were found: the document, or this test, has changed its form", checked)
	}
}

// declarations are the names that a file declares, as TestNames has them.
func declarations(t *testing.T, file string) map[string]bool {
	known := make(map[string]bool)
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", file), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return known
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			known[receiver(d)+d.Name.Name] = true
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					known[s.Name.Name] = true
					addMembers(known, s)
				case *ast.ValueSpec:
					for _, n := range s.Names {
						known[n.Name] = true
					}
				}
			}
		}
	}
	return known
}

// receiver gives "Type." for a method.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	of := d.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	if generic, ok := of.(*ast.IndexExpr); ok {
		of = generic.X
	}
	return of.(*ast.Ident).Name + "."
}

// addMembers adds the fields of a struct, and the methods of an interface.
func addMembers(known map[string]bool, s *ast.TypeSpec) {
	var list *ast.FieldList
	switch of := s.Type.(type) {
	case *ast.StructType:
		list = of.Fields
	case *ast.InterfaceType:
		list = of.Methods
	default:
		return
	}
	for _, field := range list.List {
		for _, n := range field.Names {
			known[s.Name.Name+"."+n.Name] = true
		}
	}
}

// house gives each package of the module, by its path below the module, with what its files
// (but tests) import.
func house(t *testing.T) map[string][]string {
	t.Helper()
	packages := make(map[string][]string)
	err := filepath.WalkDir("..", func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if own := e.Name(); at != ".." && (strings.HasPrefix(own, ".") || own == "testdata" || hasModule(at)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(at, ".go") || strings.HasSuffix(at, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), at, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		in, err := filepath.Rel("..", filepath.Dir(at))
		if err != nil {
			return err
		}
		in = filepath.ToSlash(in)
		for _, s := range f.Imports {
			name, err := strconv.Unquote(s.Path.Value)
			if err != nil {
				return err
			}
			if !slices.Contains(packages[in], name) {
				packages[in] = append(packages[in], name)
			}
		}
		if packages[in] == nil {
			packages[in] = []string{}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return packages
}

// hasModule reports whether a directory below the module is a module of its own.
func hasModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// floors gives the floor of each room, as the document has it.
func floors(t *testing.T) map[string]int {
	t.Helper()
	at := make(map[string]int)
	for _, row := range cells(section(t, document(t), "The floors")) {
		floor, err := strconv.Atoi(row[0])
		if err != nil { // the table of libraries
			continue
		}
		for _, room := range names(row[1]) {
			if _, twice := at[room]; twice {
				t.Errorf("%s is on two floors", room)
			}
			at[room] = floor
		}
	}
	return at
}

// TestFloors holds the imports of every room against the floors of the document.
func TestFloors(t *testing.T) {
	t.Parallel()
	at, packages := floors(t), house(t)
	_, text, _ := strings.Cut(section(t, document(t), "The floors"), "Outside of the house")
	text, _, _ = strings.Cut(text, "\n\n")
	outside := names(text)
	if len(at) < 20 || len(outside) == 0 {
		t.Fatalf("%d rooms and %d directories outside: the document has changed its form", len(at), len(outside))
	}
	for room := range at {
		if packages[room] == nil {
			t.Errorf("%s is no package", room)
		}
	}
	for room, imports := range packages {
		floor, inside := at[room]
		if !inside {
			if !slices.ContainsFunc(outside, func(o string) bool { return room == o || strings.HasPrefix(room, o+"/") }) {
				t.Errorf("%s is on no floor of docs/architecture.md", room)
			}
			continue
		}
		for _, name := range imports {
			other, own := strings.CutPrefix(name, module+"/")
			if !own {
				continue
			}
			if below, inside := at[other]; !inside {
				t.Errorf("%s imports %s, which is no room", room, other)
			} else if below >= floor {
				t.Errorf("%s, on floor %d, imports %s, on floor %d", room, floor, other, below)
			}
		}
	}
}

// libraryRows are the rows of the table of libraries: the library, and the rooms that import it.
func libraryRows(t *testing.T) (rows [][]string) {
	t.Helper()
	for _, row := range cells(section(t, document(t), "The floors")) {
		if len(row) == 2 {
			rows = append(rows, row)
		}
	}
	return rows
}

// TestLibraries holds the rooms that import some libraries against the table of the document.
func TestLibraries(t *testing.T) {
	t.Parallel()
	at, packages := floors(t), house(t)
	checked := 0
	for _, row := range libraryRows(t) {
		for _, library := range names(row[0]) {
			checked++
			var users []string
			for room, imports := range packages {
				_, inside := at[room]
				if inside && slices.ContainsFunc(imports, func(i string) bool { return i == library || strings.HasPrefix(i, library+"/") }) {
					users = append(users, room)
				}
			}
			want := names(row[1])
			slices.Sort(users)
			slices.Sort(want)
			if !slices.Equal(users, want) {
				t.Errorf("%s is imported by %q, documented: %q", library, users, want)
			}
		}
	}
	if checked == 0 {
		t.Error("the table of libraries is missing")
	}
}

// link matches a link to a file of the repository.
var link = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

// TestLinks follows the links of README.md and of the documents.
func TestLinks(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range append(documents, "../README.md") {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(path.Join(path.Dir(from), m[1])); err != nil {
				t.Errorf("%s: %v", from, err)
			}
		}
	}
}
