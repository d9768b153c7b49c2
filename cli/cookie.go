package cli

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// cookieVariable names the environment variable that names a file: a cookie itself is in no environment and on no command line, where
// others can read it.
const cookieVariable = "QUICDISTD_COOKIE_FILE"

// maxCookie is the size of a file with a cookie: an atom of Latin-1, with line ends.
const maxCookie = 4096

// cookieFiles are where a cookie is looked for, the first that is there: the file that was named, else those of OTP's auth.erl.
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

// readCookie reads the first file that is there, by the rules of OTP: nobody but its owner may have access, and a cookie is printable ASCII.
func readCookie(files []string) (cookie []byte, file string, err error) {
	for _, file := range files {
		cookie, err := readCookieFile(file)
		if os.IsNotExist(err) && len(files) > 1 {
			continue
		}
		return cookie, file, err
	}
	return nil, "", fmt.Errorf("no cookie: there is none of %q, and neither --cookie-file nor %s names another", files, cookieVariable)
}

func readCookieFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", file)
	case info.Size() > maxCookie:
		return nil, fmt.Errorf("%s has %d bytes: a cookie has at most %d", file, info.Size(), maxCookie)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s has the mode %s: it must be accessible by its owner only (chmod 400)", file, fs.FileMode.String(info.Mode()))
	}
	b := make([]byte, maxCookie)
	n, err := f.Read(b)
	if err != nil && n == 0 {
		return nil, fmt.Errorf("%s: a cookie cannot be read: %w", file, err)
	}
	return parseCookie(file, b[:n])
}

func parseCookie(file string, b []byte) ([]byte, error) {
	end := bytes.IndexAny(b, "\r\n")
	if end < 0 {
		end = len(b)
	}
	cookie, rest := b[:end], b[end:]
	if len(bytes.Trim(rest, "\r\n ")) > 0 || bytes.ContainsFunc(cookie, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, fmt.Errorf("%s: what is in it is no cookie: one line of printable ASCII", file)
	}
	if len(cookie) == 0 {
		return nil, fmt.Errorf("%s is empty", file)
	}
	return cookie, nil
}
