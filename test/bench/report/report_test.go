package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// twoRounds has one measure with three carriers, one of which was measured once.
func twoRounds() *result {
	r := new(result)
	r.Versions.Release, r.Versions.OTP, r.Rounds = "25", "25.2.3", 2
	for _, s := range []sample{
		{Carrier: "inet_tls", Round: 1, Value: 100},
		{Carrier: "inet_tls", Round: 2, Value: 140},
		{Carrier: "quic/socket", Round: 1, Value: 240},
		{Carrier: "quic/socket", Round: 2, Value: 180},
		{Carrier: "quic-go", Round: 1, Value: 300},
	} {
		s.Measure, s.Metric = "send-64KB-x1", "MB/s"
		r.Samples = append(r.Samples, s)
	}
	return r
}

// Markdown has medians, what lies between the rounds, and ratios to inet_tls; and nothing of what was not measured.
func TestMarkdownTable(t *testing.T) {
	var b bytes.Buffer
	twoRounds().writeMarkdown(&b)
	for _, want := range []string{
		"| | inet_tls | quic/socket | quic-go |\n|---|---|---|---|\n",
		"| 64 KB, 1 sender | 120 (100 to 140) | **1.75x** 210 (180 to 240) | **2.50x** 300 |\n",
		"(bench/throughput-1-otp25.svg)",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
	for _, unwanted := range []string{"8 senders", "stdio", "memory"} {
		if strings.Contains(b.String(), unwanted) {
			t.Errorf("%q in:\n%s", unwanted, b.String())
		}
	}
}

// The report tool keeps the prose of the page, and writes the same page when it is run again.
func TestDocsKeepProse(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "BENCHMARKS.md")
	if err := os.WriteFile(page, []byte("before\n"+beginMark+"\nold\n"+endMark+"\nafter\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	var pages [2]string
	for i := range pages {
		if err := writeDocs(dir, []*result{twoRounds()}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		pages[i] = string(b)
	}
	if pages[0] != pages[1] {
		t.Errorf("the second time:\n%s\nthe first time:\n%s", pages[1], pages[0])
	}
	if !strings.HasPrefix(pages[0], "before\n"+beginMark) || !strings.HasSuffix(pages[0], endMark+"\nafter\n") ||
		strings.Contains(pages[0], "old") || !strings.Contains(pages[0], "64 KB, 1 sender") {
		t.Errorf("the page is:\n%s", pages[0])
	}
	svg, err := os.ReadFile(filepath.Join(dir, "bench", "throughput-1-otp25.svg"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(svg, []byte("quic/socket")) {
		t.Error("the plot does not name quic/socket")
	}
}

// Numbers have three significant digits and no exponent.
func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.04731: "0.0473", 1: "1.00", 9.996: "10.0", 38.44: "38.4", 999.6: "1,000", 214321: "214,000", 1.5e6: "1,500,000",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}
