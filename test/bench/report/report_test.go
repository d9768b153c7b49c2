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
	r.complete()
	return r
}

// overLink has two rounds over a link.
func overLink() *result {
	r := new(result)
	r.Versions.Release, r.Versions.OTP, r.Rounds, r.Seconds = "25", "25.2.3", 2, 15
	r.Base, r.Links = "inet_tls/cubic", []wan{{"lossy", "1 % lost"}}
	for _, s := range []sample{
		{Metric: "ping p99 ms", Carrier: "inet_tls/cubic", Value: 2000},
		{Metric: "ping p99 ms", Carrier: "quic/bulk/4", Value: 100},
		{Metric: "MB/s each way", Carrier: "inet_tls/cubic", Value: 2},
		{Metric: "MB/s each way", Carrier: "quic/bulk/4", Value: 7},
	} {
		s.Measure, s.Round = "lossy", 1
		r.Samples = append(r.Samples, s)
	}
	r.complete()
	return r
}

// Markdown has the medians of inet_tls and ratios to them; and nothing of what was not measured.
func TestMarkdownTable(t *testing.T) {
	var b bytes.Buffer
	twoRounds().writeMarkdown(&b, "##")
	for _, want := range []string{
		"| | inet_tls | quic/socket | quic-go |\n|---|---|---|---|\n",
		"| 64 KB, MB/s | 120 | 1.75x | 2.50x |\n",
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

// Links have tables of their own, with ratios to the carrier that the file names.
func TestLinkTable(t *testing.T) {
	var b bytes.Buffer
	overLink().writeMarkdown(&b, "###")
	for _, want := range []string{
		"#### lossy: 1 % lost\n",
		"| | inet_tls/cubic | quic/bulk/4 |\n",
		"| ping p99, ms | 2,000 | 0.0500x |\n",
		"| exchanges, MB/s each way | 2.00 | 3.50x |\n",
		"(bench/wan-lossy-ping-otp25.svg)",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
}

// The terminal has what the page omits: sizes, carriers, and what lies between the rounds.
func TestTheTerminalHasAll(t *testing.T) {
	r := twoRounds()
	for i, value := range []float64{100, 120} {
		r.Samples = append(r.Samples, sample{"send-16KB-x1", "MB/s", "inet_tls/1.3", i, value})
	}
	var page, terminal bytes.Buffer
	r.writeMarkdown(&page, "##")
	r.writeText(&terminal)
	for _, omitted := range []string{"16 KB", "inet_tls/1.3", " to "} {
		if strings.Contains(page.String(), omitted) {
			t.Errorf("%q in:\n%s", omitted, page.String())
		}
	}
	const want = "  16 KB, 1 sender\n    inet_tls/1.3         110           (100 to 120)\n"
	if !strings.Contains(terminal.String(), want) {
		t.Errorf("no %q in:\n%s", want, terminal.String())
	}
}

// The report tool keeps the prose of the page, and writes the same page when it is run again.
func TestDocsKeepProse(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "BENCHMARKS.md")
	first, second := loopbackPart, wanPart
	text := "before\n" + first.begin + "\nold\n" + first.end + "\nbetween\n" + second.begin + "\nold\n" + second.end +
		"\nafter\n"
	if err := os.WriteFile(page, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	var pages [2]string
	for i := range pages {
		if err := writeDocs(dir, []*result{twoRounds(), overLink()}); err != nil {
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
	if !strings.HasPrefix(pages[0], "before\n"+first.begin) || !strings.HasSuffix(pages[0], second.end+"\nafter\n") ||
		!strings.Contains(pages[0], first.end+"\nbetween\n"+second.begin) || strings.Contains(pages[0], "old") ||
		!strings.Contains(pages[0], "64 KB, MB/s") || !strings.Contains(pages[0], "exchanges, MB/s") {
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
		0: "0", 0.04731: "0.0473", 1: "1.00", 9.996: "10.0", 38.44: "38.4", 999.6: "1,000", 214321: "214,000",
		1.5e6: "1,500,000",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}
