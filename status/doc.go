// Package status shows what a sidecar does: a page with plots for people, at /, and metrics for Prometheus, at /metrics. Both
// are served on loopback only, and to requests that name a loopback host only, so that no web page can read them by having its
// own name point here.
//
// It holds the figures of the last ten minutes, second by second, of each peer and of all together, and nothing else. There is
// nothing secret among them: no cookie, no key, nothing of what nodes say.
package status
