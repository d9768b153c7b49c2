// Package testrun has what the tests of this module share: a check that no goroutine outlives the tests, and waits that
// end, late enough for a slow machine.
package testrun

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Main runs the tests and exits. A goroutine that outlives the tests is a failure. It is for TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := leaked(Patience()); left != "" {
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

// Patience is how long a test waits for what should take next to no time.
func Patience() time.Duration { return Scaled(10 * time.Second) }

// Context returns a context that ends after [Patience], and with the test.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Patience())
	t.Cleanup(cancel)
	return ctx
}

// Receive returns the next value of c. The test ends as a failure when none comes.
func Receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(Patience()):
		t.Fatal("waited in vain")
		panic("unreachable")
	}
}

// Await waits until done is closed. The test ends as a failure when that does not happen; what says for what it waited.
func Await(t testing.TB, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(Patience()):
		t.Fatalf("waited in vain for %s", what)
	}
}
