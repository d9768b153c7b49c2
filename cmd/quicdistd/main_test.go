package main

import (
	"os"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// asExecutable makes the test binary be quicdistd, so that the tests of the real process need no second build.
const asExecutable = "QUICDISTD_TEST_EXECUTABLE"

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) {
	if os.Getenv(asExecutable) == asKept {
		printKept()
		os.Exit(0)
	}
	if os.Getenv(asExecutable) != "" {
		main()
		os.Exit(0) // as the Go runtime does when main returns
	}
	testrun.Main(m)
}

func scaled(d time.Duration) time.Duration { return testrun.Scaled(d) }

// patience is how long a test waits for something that should take next to no time.
func patience() time.Duration { return scaled(10 * time.Second) }
