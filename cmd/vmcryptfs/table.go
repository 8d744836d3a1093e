package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"vmcryptfs/words"
)

// table prints columns for people.
type table struct{ w *tabwriter.Writer }

func newTable(to page, columns ...string) *table {
	t := &table{tabwriter.NewWriter(to.to, 0, 0, 2, ' ', 0)}
	t.row(columns...)
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = words.Printable(c)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t *table) end() { t.w.Flush() }
