package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
)

// A result is what one run of quic_dist_bench.erl or quic_dist_wan.erl wrote.
type result struct {
	Date    string
	Rounds  int
	Machine struct {
		CPU      string
		Cores    int
		MemoryGB int `json:"memory_gb"`
		Kernel   string
	}
	Versions struct {
		Release  string
		OTP      string
		ERTS     string
		SSL      string
		OpenSSL  string
		QuicDist string `json:"quic_dist"`
		Go       string
		QuicGo   string `json:"quic_go"`
	}
	Failures []string
	Samples  []sample

	// Base is the carrier that the others are compared with, Carriers are all, in the order of every table and plot.
	Base     string
	Carriers []string

	// What only make wan has.
	Links   []wan
	Seconds int
}

// A wan is an emulated link. Its name is that of the measure on it.
type wan struct {
	Name, Title string
}

type sample struct {
	Measure string
	Metric  string
	Carrier string
	Round   int
	Value   float64
}

func read(file string) (*result, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(result)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	r.complete()
	return r, nil
}

// complete sets what make bench leaves to us, and finds the carriers that nobody named.
func (r *result) complete() {
	if r.Base == "" {
		r.Base = "inet_tls"
	}
	if r.Carriers == nil {
		r.Carriers = []string{"inet_tcp", "inet_tls", "inet_tls/1.3", "quic/socket", "quic/stdio", "quic-go"}
	}
	for _, s := range r.Samples {
		if !slices.Contains(r.Carriers, s.Carrier) {
			r.Carriers = append(r.Carriers, s.Carrier)
		}
	}
}

// place is where it was measured.
func (r *result) place() string {
	if r.Links != nil {
		return "two nodes with an emulated link"
	}
	return "two nodes on loopback"
}

// A spread is what the rounds gave for one carrier and one metric.
type spread struct {
	median, least, most float64
}

// spread returns false if the metric was not measured with that carrier.
func (r *result) spread(measure, metric, carrier string) (spread, bool) {
	var values []float64
	for _, s := range r.Samples {
		if s.Measure == measure && s.Metric == metric && s.Carrier == carrier {
			values = append(values, s.Value)
		}
	}
	if len(values) == 0 {
		return spread{}, false
	}
	slices.Sort(values)
	n := len(values)
	return spread{median: (values[(n-1)/2] + values[n/2]) / 2, least: values[0], most: values[n-1]}, true
}

// measured returns those of the carriers for which there is the metric.
func (r *result) measured(measure, metric string) []string {
	return slices.DeleteFunc(slices.Clone(r.Carriers), func(carrier string) bool {
		_, ok := r.spread(measure, metric, carrier)
		return !ok
	})
}
