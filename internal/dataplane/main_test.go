package dataplane

import (
	"testing"

	"quic_dist/internal/testrun"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { testrun.Main(m) }
