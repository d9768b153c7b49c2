package main

import (
	"os"
	"testing"

	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) {
	if os.Getenv(testvm.AsExecutable) == asKept {
		printKept()
		os.Exit(0)
	}
	if os.Getenv(testvm.AsExecutable) != "" {
		main()
		os.Exit(0) // as the Go runtime does when main returns
	}
	testrun.Main(m)
}
