//go:build !unix

package cli

import "os"

func fdName(f *os.File) string { return f.Name() }
