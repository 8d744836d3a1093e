package docs

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var draw = flag.Bool("draw", false, "write architecture.svg")

// column says where a room stands on its floor, in widths of a column.
var column = map[string]float64{
	"cmd/vmcryptfs": 5, "cmd/vmcryptfs/doctor": 5, "fs/daemon": 5, "fs/admin": 5, "fs/moves": 4, "fs": 3, "fs/scan": 7,
	"fs/inode": 1.95, "fs/content": 2.92, "fs/rekey": 5, "fs/policy": 6,
	"keys/devkms": 0, "fs/backing": 3, "fs/move": 2, "fs/wire": 5,
	"keys/kmip": 0, "fs/cryptfile": 2.2, "fs/datastore": 4.2,
	"keys": 1, "fs/ability": 5.6, "fs/transport": 8,
	"keys/kmip/wire": 0, "layout": 1, "cryptoblk": 2, "fs/rangelock": 3, "byname": 4,
	"fs/work": 5, "words": 6.3, "advice": 7.2, "fs/mounts": 8,
}

// Sizes of the picture in pixels.
const (
	columnWidth, floorHeight = 124, 78
	roomWidth, roomHeight    = 108, 34
	margin                   = 40 // left of the rooms: the floor's number
	edge                     = 12
)

// title is what a room is for, below its name; shade its colour, by the part of the house.
var title = map[string]string{
	"cmd/vmcryptfs": "the program", "cmd/vmcryptfs/doctor": "checks key servers", "fs/daemon": "one mount", "fs/admin": "control socket",
	"fs/moves": "moves of files", "fs": "FUSE operations", "fs/scan": "what should not be", "fs/inode": "numbers, names", "fs/content": "open files", "fs/rekey": "other KEKs", "fs/policy": "policies, places",
	"keys/devkms": "development KMS", "fs/backing": "what a name is", "fs/move": "halves of a file", "fs/wire": "JSON of works",
	"keys/kmip": "KMIP client", "fs/cryptfile": "an encrypted file", "fs/datastore": "settings, lock",
	"keys": "keys, cache", "fs/ability": "tests of BACKING", "fs/transport": "/dev/fuse",
	"keys/kmip/wire": "KMIP encoding", "layout": "formats, classes", "cryptoblk": "XTS-AES-256", "fs/rangelock": "ranges", "byname": "safe opens",
	"fs/work": "one work at a time", "words": "texts", "advice": "errors, advice", "fs/mounts": "mount table",
}

func shade(room string) string {
	switch top, _, _ := strings.Cut(room, "/"); top {
	case "cmd":
		return "#fde9c8"
	case "fs":
		return "#dbe9fa"
	case "keys":
		return "#e2f2dc"
	default:
		return "#eeeeee"
	}
}

// TestPicture draws the house by the floors of the document and the imports of the code, and
// compares. With -draw the picture is written.
func TestPicture(t *testing.T) {
	t.Parallel()
	at := floors(t)
	for room := range at {
		if _, ok := column[room]; !ok || title[room] == "" {
			t.Fatalf("%s has no column, or no title, in the picture", room)
		}
	}
	got := picture(at, arrows(at, house(t)))
	const file = "architecture.svg"
	if *draw {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s does not show the imports as they are: go test ./docs -draw", file)
	}
}

// arrows gives the imports between rooms, but those that follow from others.
func arrows(at map[string]int, packages map[string][]string) (list [][2]string) {
	direct := make(map[string][]string)
	for room := range at {
		for _, name := range packages[room] {
			if other, own := strings.CutPrefix(name, module+"/"); own {
				if _, inside := at[other]; inside {
					direct[room] = append(direct[room], other)
				}
			}
		}
	}
	var leads func(from, to string) bool
	leads = func(from, to string) bool {
		return slices.ContainsFunc(direct[from], func(by string) bool {
			return by == to || at[by] < at[from] && leads(by, to)
		})
	}
	for room, others := range direct {
		for _, other := range others {
			follows := slices.ContainsFunc(others, func(by string) bool { return by != other && at[by] < at[room] && leads(by, other) })
			if !follows {
				list = append(list, [2]string{room, other})
			}
		}
	}
	slices.SortFunc(list, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	return list
}

// picture is the house as an SVG on white, for pages of any colour.
func picture(at map[string]int, arrows [][2]string) []byte {
	top, right := 0, 0.0
	var rooms []string
	for room, floor := range at {
		top, right = max(top, floor), max(right, column[room])
		rooms = append(rooms, room)
	}
	slices.Sort(rooms)
	width := margin + int(right*columnWidth) + roomWidth + edge
	height := (top+1)*floorHeight + edge
	x := func(room string) float64 { return margin + column[room]*columnWidth }
	y := func(floor int) float64 { return float64((top-floor)*floorHeight + edge + (floorHeight-roomHeight)/2) }

	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="Helvetica, Arial, sans-serif">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<title>The packages of vmcryptfs: an arrow leads from a package to one that it imports</title>`+"\n")
	fmt.Fprintf(&b, `<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#5b6770"/></marker></defs>`+"\n")
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	for floor := range top + 1 {
		fmt.Fprintf(&b, `<text x="14" y="%g" font-size="15" fill="#8a949c">%d</text>`+"\n", y(floor)+roomHeight/2+5, floor)
		if floor > 0 {
			fmt.Fprintf(&b, `<path d="M%d,%g H%d" stroke="#e3e6e8"/>`+"\n", edge, y(floor)+(floorHeight+roomHeight)/2, width-edge)
		}
	}
	for _, a := range arrows {
		x1, y1 := x(a[0])+roomWidth/2, y(at[a[0]])+roomHeight
		x2, y2 := x(a[1])+roomWidth/2, y(at[a[1]])
		late := 34.0
		if at[a[0]] > 5 { // above the rooms below: it goes aside first, then down
			late = 0.75 * (y2 - y1)
		}
		// Arrows of one room part below it, and arrive apart.
		x1 += max(-40, min(40, (x2-x1)/12))
		x2 -= max(-40, min(40, (x2-x1)/12))
		fmt.Fprintf(&b, `<path d="M%.0f,%.0f C%.0f,%.0f %.0f,%.0f %.0f,%.0f" fill="none" stroke="#5b6770" stroke-width="1.2" marker-end="url(#head)"/>`+"\n",
			x1, y1, x1, y1+34, x2, y2-late, x2, y2)
	}
	for _, room := range rooms {
		fmt.Fprintf(&b, `<rect x="%.0f" y="%.0f" width="%d" height="%d" rx="4" fill="%s" stroke="#5b6770"/>`+"\n", x(room), y(at[room]), roomWidth, roomHeight, shade(room))
		name := room
		if len(name) > 16 {
			name = "…/" + name[strings.LastIndexByte(name, '/')+1:]
		}
		fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" font-size="12.5" font-weight="bold" fill="#1c2226" text-anchor="middle">%s</text>`+"\n", x(room)+roomWidth/2, y(at[room])+15, name)
		fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" font-size="10.5" fill="#3d474e" text-anchor="middle">%s</text>`+"\n", x(room)+roomWidth/2, y(at[room])+28, title[room])
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
