// Command gen writes cryptoblk's assembly for amd64: the key schedules, the runs
// of whole data units at three register widths, and the short last unit.
//
//	go run .        writes xts_amd64.s and xts_amd64.go in the directory above
//	go test .       fails unless those are what this program writes
//
// # Features
//
// Everything here needs AES, PCLMULQDQ and AVX (VEX encodings only, so nothing
// mixes with legacy SSE). The kernels named VAES need AVX2, VAES and VPCLMULQDQ
// too, and no AVX-512; those named VAES512 need AVX-512 F and BW, VAES and
// VPCLMULQDQ. The caller checks.
//
// # How a kernel works
//
// A kernel keeps eight registers of blocks in flight: an AES instruction takes
// three or four cycles and two may start in each, so eight hide that. These are 8,
// 16 or 32 blocks, a quarter, a half or the whole of a data unit. All else is put
// between the AES instructions, evenly, since a heap of it would have the units
// that AES needs to itself:
//
//   - The masks of the next group, or of the next unit. Block j of a unit is masked
//     with its tweak times α^j. Groups advance by α^8, α^16 or α^24, which are
//     shifts by bytes; see mask.go. A mask has the last round key XORed in, so
//     that the last AES instruction unmasks.
//   - More tweaks, a register of them at a time, in every unit, second or fourth
//     unit. They wait in a ring on the stack; see loop.go.
//
// To decrypt, the first register of a unit is tested as it is loaded. Only if it is
// zero, which for data is as likely as a guessed key, the rest is.
//
// # Registers
//
//	DI, SI   output, input: the unit at hand
//	CX       units left
//	DX       the key schedules, in the layout of schedule.go
//	R8, R9   number of the unit at hand, lower and upper half
//	R10      scratch area: tweaks, masks, constants; 64-byte aligned
//	R11      tweaks left in the ring, from that of the unit at hand on
//	R12      number of the unit whose masks are ready
//	R13      offset in the ring of the tweak of the unit at hand
//	AX, BX   temporaries
//	0-7      vector registers: blocks; for the others see vex.go and evex.go
//
// The caller sees to it that R8 + CX does not pass 2^64. All vector registers are
// zero on return, and the scratch area is.
package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"go/format"
	"go/parser"
	"go/token"
	"log"
	"os"
	"strings"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

//go:embed main.go
var thisFile string

const (
	asmFile   = "../xts_amd64.s"
	stubsFile = "../xts_amd64.go"
)

func main() {
	asm, stubs, err := generate()
	if err == nil {
		err = os.WriteFile(asmFile, asm, 0o644)
	}
	if err == nil {
		err = os.WriteFile(stubsFile, stubs, 0o644)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// generate returns the assembly and its Go declarations.
func generate() (asm, stubs []byte, err error) {
	g := &generator{Context: build.NewContext()}
	g.ConstraintExpr("!purego")
	g.tables()
	g.cpuid()
	g.expandKeys()
	for _, dir := range []direction{encrypt, decrypt} {
		g.short(dir)
		for _, w := range []width{w128, w256} {
			g.vex(w, dir)
		}
		g.evex(dir)
	}
	file, err := g.Result()
	if err != nil {
		return nil, nil, err
	}
	if err := pass.Compile.Execute(file); err != nil {
		return nil, nil, err
	}
	cfg := printer.Config{Argv: []string{"go", "generate"}, Pkg: "cryptoblk"}
	if asm, err = print(file, printer.NewGoAsm(cfg)); err != nil {
		return nil, nil, err
	}
	if asm, err = explain(asm); err != nil {
		return nil, nil, err
	}
	if stubs, err = print(file, printer.NewStubs(cfg)); err != nil {
		return nil, nil, err
	}
	stubs, err = format.Source(stubs)
	return asm, stubs, err
}

func print(file *ir.File, p printer.Printer) ([]byte, error) {
	out, err := p.Print(file)
	if err != nil {
		return nil, fmt.Errorf("print: %w", err)
	}
	return append(bytes.TrimRight(out, "\n"), '\n'), nil
}

// explain puts this package's comment behind asm's first line, for those who read
// the assembly alone.
func explain(asm []byte) ([]byte, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "main.go", thisFile, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		return nil, err
	}
	head, rest, _ := bytes.Cut(asm, []byte("\n"))
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n\n", head)
	for line := range strings.Lines(file.Doc.Text()) {
		b.WriteString(strings.TrimRight("// "+line, " \t\n") + "\n")
	}
	b.Write(rest)
	return b.Bytes(), nil
}

// direction is what a function does with blocks.
type direction struct {
	name, verb string
	keys       int // offset of the data key's schedule for it
}

var (
	encrypt = direction{"encrypt", "encrypts", encryptKeys}
	decrypt = direction{"decrypt", "decrypts", decryptKeys}
)
