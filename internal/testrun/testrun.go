// Package testrun is what this module's test binaries share: the check that no goroutine outlives the tests, and deadlines
// that stretch on slow machines.
package testrun

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Main runs the tests and exits; as a failure, too, if a goroutine outlives them. It is for TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := leaked(Scaled(10 * time.Second)); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines outlive the tests:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked waits until no goroutine is in this module's or quic-go's code, and returns their stacks if that takes longer
// than d. Some of quic-go's goroutines end shortly after the Close that ends them.
func leaked(d time.Duration) string {
	for end := time.Now().Add(d); ; time.Sleep(10 * time.Millisecond) {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		var left []string
		for g := range strings.SplitSeq(string(stacks), "\n\n") {
			if strings.Contains(g, "quic") && !strings.Contains(g, ".TestMain(") {
				left = append(left, g)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return strings.Join(left, "\n\n")
		}
	}
}

// Scaled multiplies a deadline by the environment variable QUIC_DIST_TEST_SCALE, if that is a number.
func Scaled(d time.Duration) time.Duration {
	if f, err := strconv.ParseFloat(os.Getenv("QUIC_DIST_TEST_SCALE"), 64); err == nil && f > 0 {
		return time.Duration(f * float64(d))
	}
	return d
}
