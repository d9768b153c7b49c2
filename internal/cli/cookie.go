package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// cookieVariable is the environment variable that names the cookie's file. The cookie itself is never taken from the
// environment or the command line, because other users can read these.
const cookieVariable = "QUICDISTD_COOKIE_FILE"

// maxCookie is the size of a file with a cookie: an atom of Latin-1, with line ends.
const maxCookie = 4096

// cookieFiles lists where to look for a cookie, in order: the named file, else those of OTP's auth.erl.
func cookieFiles(option string, getenv func(string) string) []string {
	if option != "" {
		return []string{option}
	}
	if named := getenv(cookieVariable); named != "" {
		return []string{named}
	}
	var files []string
	if home, err := os.UserHomeDir(); err == nil {
		files = append(files, filepath.Join(home, ".erlang.cookie"))
	}
	if config, err := os.UserConfigDir(); err == nil {
		files = append(files, filepath.Join(config, "erlang", ".erlang.cookie"))
	}
	return files
}

// stdinFile stands for standard input.
const stdinFile = "-"

// readCookie reads the first file that exists, by the rules of OTP: only its owner may have access, and a cookie is
// printable ASCII.
func readCookie(ctx context.Context, files []string, stdin io.Reader) (cookie []byte, file string, err error) {
	for _, file := range files {
		cookie, err := readCookieFile(ctx, file, stdin)
		if os.IsNotExist(err) && len(files) > 1 {
			continue
		}
		return cookie, file, err
	}
	return nil, "", fmt.Errorf("no cookie: there is none of %q, and neither --cookie-file nor %s names another", files,
		cookieVariable)
}

func readCookieFile(ctx context.Context, file string, stdin io.Reader) ([]byte, error) {
	if file == stdinFile {
		const name = "standard input"
		if f, ok := stdin.(*os.File); ok {
			if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
				if err := checkCookieFile(name, info); err != nil {
					return nil, err
				}
			}
		}
		b, err := readAll(ctx, stdin, maxCookie)
		if err != nil {
			return nil, fmt.Errorf("%s: a cookie cannot be read: %w", name, err)
		}
		return parseCookie(name, b)
	}
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a named pipe that nobody writes to would wait here
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkCookieFile(file, info); err != nil {
		return nil, err
	}
	b, err := readAll(ctx, f, maxCookie)
	if err != nil {
		return nil, fmt.Errorf("%s: a cookie cannot be read: %w", file, err)
	}
	return parseCookie(file, b)
}

// checkCookieFile refuses a file that other users could have read or written. A pipe is allowed: a shell's <(command)
// is one, and /dev/stdin may be.
func checkCookieFile(name string, info fs.FileInfo) error {
	switch {
	case info.Mode()&fs.ModeType&^fs.ModeNamedPipe != 0:
		return fmt.Errorf("%s is neither a file nor a pipe", name)
	case info.Size() > maxCookie:
		return fmt.Errorf("%s has %d bytes: a cookie has at most %d", name, info.Size(), maxCookie)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s has the mode %s: it must be accessible by its owner only (chmod 400)", name, info.Mode())
	}
	return nil
}

// readAll reads to the end of the input, until ctx ends. More than most bytes are an error.
func readAll(ctx context.Context, from io.Reader, most int64) ([]byte, error) {
	type result struct {
		b   []byte
		err error
	}
	done := make(chan result, 1)
	// A read cannot be interrupted. After ctx has ended, this goroutine ends with the input or with the process.
	go func() {
		b, err := io.ReadAll(io.LimitReader(from, most+1))
		done <- result{b, err}
	}()
	select {
	case r := <-done:
		if r.err == nil && int64(len(r.b)) > most {
			return nil, fmt.Errorf("it has more than %d bytes", most)
		}
		return r.b, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func parseCookie(file string, b []byte) ([]byte, error) {
	end := bytes.IndexAny(b, "\r\n")
	if end < 0 {
		end = len(b)
	}
	cookie, rest := b[:end], b[end:]
	if len(bytes.Trim(rest, "\r\n ")) > 0 || bytes.ContainsFunc(cookie, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, fmt.Errorf("%s: it does not hold a cookie, which is one line of printable ASCII", file)
	}
	if len(cookie) == 0 {
		return nil, fmt.Errorf("%s is empty", file)
	}
	return cookie, nil
}
