package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A section is one table.
type section struct {
	title string
	plots []plotKind // above it, on the page
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

// forPeople are the measures of make bench that people decide by, one table of the page. The terminal has all.
var forPeople = section{"", []plotKind{throughputOfOne, throughputOfEight, roundTrips, bulkRoundTrips}, []row{
	{"send-100B-x1", "MB/s", "100 B, MB/s"},
	{"send-1KB-x1", "MB/s", "1 KB, MB/s"},
	{"send-64KB-x1", "MB/s", "64 KB, MB/s"},
	{"send-1MB-x1", "MB/s", "1 MB, MB/s"},
	{"send-64MB-x1", "MB/s", "64 MB, MB/s"},
	{"send-100B-x8", "MB/s", "100 B, 8 senders, MB/s"},
	{"send-1MB-x8", "MB/s", "1 MB, 8 senders, MB/s"},
	{"round-trip-0", "p50 us", "round trip p50, us"},
	{"round-trip-0", "p99 us", "round trip p99, us"},
	{"round-trip-64KB", "p50 us", "round trip of 64 KB p50, us"},
	{"window-round-trip", "p99 us", "beside two p99, us"},
	{"bulk-round-trip", "p50 us", "beside many p50, us"},
	{"bulk-round-trip", "p99 us", "beside many p99, us"},
	{"cpu-64KB", "CPU s/GB", "CPU s/GB"},
	{"cpu-64KB", "BEAM CPU s/GB", "of which BEAMs"},
	{"connect", "p50 ms", "connect, ms"},
	{"memory", "idle with 100 MB", "memory, 100 channels, MB"},
	{"memory", "receiving MB", "memory, under load, MB"},
}}

// omitted are carriers that only the plots and the terminal have.
var omitted = []string{"inet_tls/1.3", "quic/bulk/8", "quic/sender/8"}

// forPage returns the tables of the page.
func (r *result) forPage() []section {
	if r.Links == nil {
		return []section{forPeople}
	}
	return r.sections()
}

func (r *result) sections() []section {
	if r.Links == nil {
		return loopbackSections()
	}
	var all []section
	for _, l := range r.Links {
		all = append(all, section{fmt.Sprintf("%s: %s", l.Name, l.Title), []plotKind{pings(l), exchange(l)}, []row{
			{l.Name, "ping p50 ms", "ping p50, ms"},
			{l.Name, "ping p99 ms", "ping p99, ms"},
			{l.Name, "MB/s each way", "exchanges, MB/s each way"},
		}})
	}
	return all
}

func loopbackSections() []section {
	var bytes, trips []row
	for _, senders := range []string{"1 sender", "8 senders"} {
		for _, size := range sizes {
			bytes = append(bytes, row{"send-" + size.measure + "-x" + senders[:1], "MB/s", size.title + ", " + senders})
		}
	}
	for _, size := range []struct{ measure, title string }{{"0", "empty"}, {"1KB", "1 KB"}, {"64KB", "64 KB"}} {
		for _, p := range []string{"p50", "p99"} {
			trips = append(trips, row{"round-trip-" + size.measure, p + " us", size.title + ", " + p})
		}
	}
	return []section{
		{"Throughput, MB/s", nil, bytes},
		{"Round trip, microseconds (less is better)", nil, trips},
		{"Round trip of an empty message while 1 MB messages flow", nil, slices.Concat(
			bulkRows("window-round-trip", "two under way"),
			bulkRows("bulk-round-trip", "no limit"),
		)},
		{"CPU seconds per GB, 64 KB messages (less is better)", nil, []row{
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
	return slices.DeleteFunc(slices.Clone(s.rows), func(w row) bool { return len(r.measured(w.measure, w.metric)) == 0 })
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

// writeMarkdown writes the tables for docs/BENCHMARKS.md: the medians of the base and the others' ratios to them. The
// heading begins with these marks.
func (r *result) writeMarkdown(w io.Writer, heading string) {
	fmt.Fprintf(w, "%s OTP %s\n\n%s\n", heading, r.Versions.OTP, r.provenance())
	for _, f := range r.Failures {
		fmt.Fprintf(w, "\n**Failed:** %s\n", f)
	}
	for _, s := range r.forPage() {
		rows := r.measuredRows(s)
		if len(rows) == 0 {
			continue
		}
		if s.title != "" {
			fmt.Fprintf(w, "\n%s# %s\n", heading, s.title)
		}
		fmt.Fprintln(w)
		for _, k := range s.plots {
			if k.has(r) {
				title := k.title
				if i := strings.IndexAny(title, "\n:("); i > 0 {
					title = title[:i] // the plot has the rest
				}
				fmt.Fprintf(w, "![%s](bench/%s)\n\n", strings.TrimSpace(title), k.file(r))
			}
		}
		columns := slices.DeleteFunc(slices.Clone(r.Carriers), func(carrier string) bool {
			return slices.Contains(omitted, carrier) || !slices.ContainsFunc(rows, func(w row) bool {
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
	if ratio := r.ratio(w, v); ratio != "" && carrier != r.Base {
		return " " + ratio + " "
	}
	return " " + number(v.median) + " "
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
