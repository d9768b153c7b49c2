//go:build !unix

package cert

const hasModes = false

func umask(int) int { return 0 }
