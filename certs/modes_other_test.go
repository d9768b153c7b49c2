//go:build !unix

package certs

const hasModes = false

func umask(int) int { return 0 }
