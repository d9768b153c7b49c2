package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A section is one table, and the plots that stand above it.
type section struct {
	title string
	plots []plotKind
	rows  []row
}

// A row is one metric of one measure.
type row struct {
	measure, metric, title string
}

var sizes = []struct {
	measure, title string
	bytes          float64
}{
	{"100B", "100 B", 100},
	{"1KB", "1 KB", 1 << 10},
	{"16KB", "16 KB", 1 << 14},
	{"64KB", "64 KB", 1 << 16},
	{"1MB", "1 MB", 1 << 20},
	{"64MB", "64 MB", 1 << 26},
}

func (r *result) sections() []section {
	if r.Links == nil {
		return loopbackSections()
	}
	var all []section
	for _, l := range r.Links {
		all = append(all, section{fmt.Sprintf("%s: %s", l.Name, l.Title), []plotKind{pings(l), exchange(l)}, []row{
			{l.Name, "ping p50 ms", "ping p50, milliseconds (less is better)"},
			{l.Name, "ping p99 ms", "ping p99, milliseconds (less is better)"},
			{l.Name, "round trips", fmt.Sprintf("round trips of 256 KB in %d s", r.Seconds)},
			{l.Name, "MB/s each way", "that is, MB/s each way"},
		}})
	}
	return all
}

func loopbackSections() []section {
	var messages, bytes, trips []row
	for _, senders := range []string{"1 sender", "8 senders"} {
		for _, size := range sizes {
			measure, title := "send-"+size.measure+"-x"+senders[:1], size.title+", "+senders
			messages = append(messages, row{measure, "messages/s", title})
			bytes = append(bytes, row{measure, "MB/s", title})
		}
	}
	for _, size := range []struct{ measure, title string }{{"0", "empty"}, {"1KB", "1 KB"}, {"64KB", "64 KB"}} {
		for _, p := range []string{"p50", "p99"} {
			trips = append(trips, row{"round-trip-" + size.measure, p + " us", size.title + ", " + p})
		}
	}
	return []section{
		{"Throughput, MB/s", []plotKind{throughputOfOne, throughputOfEight}, bytes},
		{"Throughput, messages per second", nil, messages},
		{"Round trip, microseconds (less is better)", []plotKind{roundTrips}, trips},
		{"Round trip of an empty message while 1 MB messages flow", []plotKind{windowRoundTrips, bulkRoundTrips}, slices.Concat(
			bulkRows("window-round-trip", "two under way"),
			bulkRows("bulk-round-trip", "no limit"),
		)},
		{"CPU seconds per GB, 64 KB messages (less is better)", []plotKind{cpu}, []row{
			{"cpu-64KB", "CPU s/GB", "all processes of both ends"},
			{"cpu-64KB", "BEAM CPU s/GB", "the two BEAMs alone"},
		}},
		{"Time to connect, milliseconds (less is better)", nil, []row{
			{"connect", "p50 ms", "a node connects again"},
		}},
		{"Resident memory of one sidecar, MB (less is better)", nil, []row{
			{"memory", "idle with 1 MB", "idle, 1 channel"},
			{"memory", "idle with 10 MB", "idle, 10 channels"},
			{"memory", "idle with 100 MB", "idle, 100 channels"},
			{"memory", "sending MB", "most while it sends, 8 senders of 64 KB"},
			{"memory", "receiving MB", "most while it receives, 8 senders of 64 KB"},
		}},
	}
}

func bulkRows(measure, limit string) []row {
	return []row{
		{measure, "p50 us", limit + ": p50, microseconds (less is better)"},
		{measure, "p99 us", limit + ": p99, microseconds (less is better)"},
		{measure, "MB/s", limit + ": the flow meanwhile, MB/s"},
	}
}

// measuredRows drops what was not measured.
func (r *result) measuredRows(s section) []row {
	return slices.DeleteFunc(s.rows, func(w row) bool { return len(r.measured(w.measure, w.metric)) == 0 })
}

// ratio returns "" if there is nothing to compare with.
func (r *result) ratio(w row, s spread) string {
	b, ok := r.spread(w.measure, w.metric, r.Base)
	if !ok {
		return ""
	}
	return number(s.median/b.median) + "x"
}

// writeText writes the tables for a terminal: a line for each carrier.
func (r *result) writeText(w io.Writer) {
	fmt.Fprintf(w, "\n%s\nMedian (least to most) and ratio to %s.\n", r.provenance(), r.Base)
	for _, s := range r.sections() {
		for i, row := range r.measuredRows(s) {
			if i == 0 {
				fmt.Fprintf(w, "\n%s\n", s.title)
			}
			fmt.Fprintf(w, "  %s\n", row.title)
			for _, carrier := range r.measured(row.measure, row.metric) {
				v, _ := r.spread(row.measure, row.metric, carrier)
				line := fmt.Sprintf("    %-14s %9s %8s  %s", carrier, number(v.median), r.ratio(row, v), v.width())
				fmt.Fprintln(w, strings.TrimRight(line, " "))
			}
		}
	}
	for _, f := range r.Failures {
		fmt.Fprintf(w, "\nFAILED: %s\n", f)
	}
}

// writeMarkdown writes the tables for docs/BENCHMARKS.md: a column for each carrier. The heading begins with these marks.
func (r *result) writeMarkdown(w io.Writer, heading string) {
	fmt.Fprintf(w, "%s OTP %s\n\n%s\n", heading, r.Versions.OTP, r.provenance())
	for _, f := range r.Failures {
		fmt.Fprintf(w, "\n**Failed:** %s\n", f)
	}
	for _, s := range r.sections() {
		rows := r.measuredRows(s)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s# %s\n\n", heading, s.title)
		for _, k := range s.plots {
			if k.has(r) {
				fmt.Fprintf(w, "![%s](bench/%s)\n\n", strings.ReplaceAll(k.title, "\n", " "), k.file(r))
			}
		}
		columns := slices.DeleteFunc(slices.Clone(r.Carriers), func(carrier string) bool {
			return !slices.ContainsFunc(rows, func(w row) bool {
				_, ok := r.spread(w.measure, w.metric, carrier)
				return ok
			})
		})
		fmt.Fprintf(w, "| | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
		for _, row := range rows {
			fmt.Fprintf(w, "| %s |", row.title)
			for _, carrier := range columns {
				fmt.Fprint(w, r.cell(row, carrier), "|")
			}
			fmt.Fprintln(w)
		}
	}
}

func (r *result) cell(w row, carrier string) string {
	v, ok := r.spread(w.measure, w.metric, carrier)
	if !ok {
		return " "
	}
	words := []string{number(v.median), v.width()}
	if ratio := r.ratio(w, v); ratio != "" && carrier != r.Base {
		words = append([]string{"**" + ratio + "**"}, words...)
	}
	return " " + strings.TrimSpace(strings.Join(words, " ")) + " "
}

func (r *result) provenance() string {
	v, m := r.Versions, r.Machine
	return fmt.Sprintf("%s, %d cores, %d GB, Linux %s. OTP %s (erts %s, ssl %s, %s), quic_dist %s, %s, quic-go %s. %s, rounds: %d.",
		m.CPU, m.Cores, m.MemoryGB, m.Kernel, v.OTP, v.ERTS, v.SSL, v.OpenSSL, v.QuicDist, v.Go, v.QuicGo, r.Date, r.Rounds)
}

// width is what lies between the rounds, or nothing if there was only one.
func (s spread) width() string {
	if s.least == s.most {
		return ""
	}
	return "(" + number(s.least) + " to " + number(s.most) + ")"
}

// number writes three significant digits.
func number(v float64) string {
	if v == 0 {
		return "0"
	}
	rounded := strconv.FormatFloat(v, 'e', 2, 64)
	v, _ = strconv.ParseFloat(rounded, 64)
	exponent, _ := strconv.Atoi(rounded[strings.IndexByte(rounded, 'e')+1:])
	return thousands(strconv.FormatFloat(v, 'f', max(0, 2-exponent), 64))
}

// thousands puts commas into a whole number, and leaves others, which are small here, as they are.
func thousands(digits string) string {
	if strings.Contains(digits, ".") {
		return digits
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
