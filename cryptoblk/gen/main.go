// Command gen writes cryptoblk's assembly for amd64: the key schedules, the runs of whole data
// units at three register widths, and the short last unit.
//
//	go run .        writes xts_amd64.s and xts_amd64.go in the directory above
//	go test .       fails unless both files equal this program's output
//
// # Features
//
// Everything here needs AES, PCLMULQDQ and AVX (VEX encodings only, so nothing mixes with legacy
// SSE). The kernels named VAES need AVX2, VAES and VPCLMULQDQ too, and no AVX-512. The kernels
// named VAES512 need AVX-512 F and BW, VAES and VPCLMULQDQ. The caller checks.
//
// # How a kernel works
//
// A kernel keeps eight registers of blocks in flight: an AES instruction takes three or four
// cycles and two may start in each cycle, so eight registers hide the latency. Eight registers
// are 8, 16 or 32 blocks: a quarter, a half or the whole of a data unit. All other work is spread
// evenly between the AES instructions; in a heap, other work would hold the execution units
// needed by AES:
//
//   - The masks of the next group, or of the next unit. The mask of block j of a unit is the
//     unit's tweak times α^j. Groups advance by α^8, α^16 or α^24, which are shifts by bytes;
//     see mask.go. A mask has the last round key XORed in, so the last AES instruction
//     unmasks.
//   - More tweaks, a register of tweaks at a time, in every unit, second or fourth unit. The
//     tweaks wait in a ring on the stack; see loop.go.
//
// To decrypt, the first register of a unit is tested while loading. The rest of the unit is
// tested only if the first register is zero; for data, a zero is as likely as a guessed key.
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
// The caller ensures that R8 + CX does not pass 2^64. On return all vector registers and the
// scratch area are zero.
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

// generate returns the assembly and the Go declarations.
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

// explain puts the package comment of gen behind asm's first line, for readers of the assembly
// alone.
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

// direction is encryption or decryption, as a function does to blocks.
type direction struct {
	name, verb string
	keys       int // offset of the direction's schedule of the data key
}

var (
	encrypt = direction{"encrypt", "encrypts", encryptKeys}
	decrypt = direction{"decrypt", "decrypts", decryptKeys}
)
