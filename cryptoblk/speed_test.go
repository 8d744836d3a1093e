//go:build bench

package cryptoblk

import (
	"bytes"
	"crypto/aes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/xts"
	"golang.org/x/sys/unix"
)

const (
	longRun = 128 << 10
	oneCall = 4 << 10

	speedRounds   = 301              // medians are of so many
	speedSlice    = time.Millisecond // for one candidate in one round
	opensslRounds = 3                // of a second each, spread among the rounds
)

// candidate is one thing whose speed is measured.
type candidate struct {
	name    string
	measure func() (float64, error) // GB/s
	every   int                     // rounds
	speeds  []float64
}

func (c *candidate) median() float64 {
	s := slices.Sorted(slices.Values(c.speeds))
	return s[len(s)/2]
}

// TestSpeed prints the table of docs/performance.md. The test measures a thread's own CPU time,
// each candidate for a moment and then all again, so other load on the machine and changing
// clocks affect all alike.
func TestSpeed(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all := candidates(t)
	for round := range speedRounds {
		for _, c := range all {
			if round%c.every != 0 {
				continue
			}
			speed, err := c.measure()
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			c.speeds = append(c.speeds, speed)
		}
	}
	speed := map[string]float64{}
	for _, c := range all {
		speed[c.name] = c.median()
	}
	printSpeeds(all, speed)
	printTargets(speed)
}

// candidates lists the measured functions. The names are keys of the result: an implementation's
// name and the operation.
func candidates(t *testing.T) []*candidate {
	var all []*candidate
	add := func(name string, measure func() (float64, error)) {
		all = append(all, &candidate{name: name, measure: measure, every: 1})
	}
	for _, r := range roundsAlone() {
		add(r.name+" rounds", func() (float64, error) { return timed(r.bytes, r.pass) })
	}
	for _, impl := range implementations() {
		c := mustCipher(t, impl, testKey)
		buf := random(9, longRun)
		add(impl.name+" encrypt", func() (float64, error) {
			return timed(longRun, func(int) { c.Encrypt(buf, buf, 1<<33) })
		})
		add(impl.name+" decrypt", func() (float64, error) {
			return timed(longRun, func(int) { c.Decrypt(buf, buf, 1<<33) })
		})
		add(impl.name+" encrypt 4K", func() (float64, error) {
			return timed(oneCall, func(i int) { page := part(buf, i); c.Encrypt(page, page, uint64(i)) })
		})
		add(impl.name+" decrypt 4K", func() (float64, error) {
			return timed(oneCall, func(i int) { page := part(buf, i); c.Decrypt(page, page, uint64(i)) })
		})
	}
	add("x/crypto encrypt", xcryptoSpeed(t))
	for _, size := range []int{UnitSize, longRun} {
		add(fmt.Sprintf("openssl %d", size), func() (float64, error) { return opensslSpeed(size) })
		all[len(all)-1].every = (speedRounds + opensslRounds - 1) / opensslRounds
	}
	return all
}

// part returns page i of buf, counted from the start again after the end.
func part(buf []byte, i int) []byte {
	off := i * oneCall % len(buf)
	return buf[off : off+oneCall]
}

// timed calls pass for speedSlice of CPU time, and returns GB/s if each call does
// size bytes.
func timed(size int, pass func(i int)) (float64, error) {
	start, err := cpuTime()
	if err != nil {
		return 0, err
	}
	for i, calls := 0, 1; ; calls *= 2 {
		for range calls {
			pass(i)
			i++
		}
		now, err := cpuTime()
		if err != nil {
			return 0, err
		}
		if spent := now - start; spent >= speedSlice {
			return float64(i) * float64(size) / float64(spent.Nanoseconds()), nil
		}
	}
}

// cpuTime returns the CPU time of this thread.
func cpuTime() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano()), err
}

// xcryptoSpeed measures golang.org/x/crypto/xts, a call for each unit.
func xcryptoSpeed(t *testing.T) func() (float64, error) {
	ref, err := xts.NewCipher(aes.NewCipher, testKey)
	if err != nil {
		t.Fatal(err)
	}
	buf := random(10, longRun)
	return func() (float64, error) {
		return timed(longRun, func(int) {
			for i := 0; i < longRun; i += UnitSize {
				ref.Encrypt(buf[i:i+UnitSize], buf[i:i+UnitSize], uint64(i))
			}
		})
	}
}

// opensslSpeed runs OpenSSL's own measurement, also of CPU time; each call of EVP is a data unit
// of size bytes.
func opensslSpeed(size int) (float64, error) {
	cmd := exec.Command("openssl", "speed", "-mr", "-evp", "aes-256-xts", "-bytes", strconv.Itoa(size), "-seconds", "1")
	out, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	// +F:22:AES-256-XTS:4328592290.00
	for line := range bytes.Lines(out) {
		if fields := strings.Split(strings.TrimSpace(string(line)), ":"); fields[0] == "+F" {
			speed, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			return speed / 1e9, err
		}
	}
	return 0, fmt.Errorf("no result in %q", out)
}

func printSpeeds(all []*candidate, speed map[string]float64) {
	fmt.Printf("CPU: %s\n", cpuModel())
	fmt.Printf("Units of 512 bytes, runs of 128 KiB, one core, medians of %d; CPU time.\n\n", speedRounds)
	fmt.Printf("| %-20s |  GB/s |  best | × openssl 512 | × x/crypto |\n", "what")
	fmt.Printf("|%s|------:|------:|--------------:|-----------:|\n", strings.Repeat("-", 22))
	for _, c := range all {
		fmt.Printf("| %-20s | %5.2f | %5.2f | %13.2f | %10.1f |\n", c.name, speed[c.name], slices.Max(c.speeds),
			speed[c.name]/speed["openssl 512"], speed[c.name]/speed["x/crypto encrypt"])
	}
	fmt.Println()
}

// printTargets compares the results with the targets of issue 5. The AES rounds alone are the
// limit for XTS at the same width.
func printTargets(speed map[string]float64) {
	target := func(what string, got, want, limit float64) {
		verdict := "reached"
		switch {
		case got >= want:
		case limit < want:
			verdict = fmt.Sprintf("NOT reached: the AES rounds alone make %.2f on this CPU", limit)
		default:
			verdict = "NOT reached"
		}
		fmt.Printf("%-55s %5.2f  (target %.2f)  %s\n", what, got, want, verdict)
	}
	evp := map[string]float64{"aesni": 1.9, "vaes": 3.7, "vaes512": 3.7}
	for _, impl := range implementations() {
		name := impl.name
		encrypt, decrypt := speed[name+" encrypt"], speed[name+" decrypt"]
		if rounds := speed[name+" rounds"]; rounds > 0 {
			target(name+": encrypt / AES rounds alone", encrypt/rounds, 0.88, 1)
			target(name+": decrypt / AES rounds alone", decrypt/rounds, 0.88, 1)
		}
		if want, ok := evp[name]; ok {
			target(name+": encrypt / OpenSSL, a call for each unit", encrypt/speed["openssl 512"], want,
				speed[name+" rounds"]/speed["openssl 512"])
		}
		target(name+": 4 KiB requests / long runs, encrypt", speed[name+" encrypt 4K"]/encrypt, 0.80, 1)
		target(name+": 4 KiB requests / long runs, decrypt", speed[name+" decrypt 4K"]/decrypt, 0.80, 1)
		target(name+": decrypt / encrypt, nearer to 1", 1-math.Abs(1-decrypt/encrypt), 0.95, 1)
	}
}

func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err.Error()
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return fmt.Sprintf("%s, family %s model %s", fields["model name"], fields["cpu family"], fields["model"])
}
