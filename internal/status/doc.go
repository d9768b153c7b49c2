// Package status shows what a sidecar does: a page with plots for people at /, and metrics for Prometheus at /metrics.
// It serves both on loopback only, and only to requests that name a loopback host. So a web page elsewhere cannot read
// them by DNS rebinding.
//
// It keeps one sample a second for the last ten minutes, of each peer and of all peers together, and the latest events.
// None of it is secret: no cookie, no key, nothing that nodes say to each other.
package status
