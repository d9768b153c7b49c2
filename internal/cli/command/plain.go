package command

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// Plain returns the text of an error for people, without the operations and functions that Go's packages name.
func Plain(err error) string {
	text := err.Error()
	var walk func(error)
	walk = func(err error) {
		if words := plain(err); words != "" {
			text = strings.ReplaceAll(text, err.Error(), words)
			return // they replace the text of the errors inside
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			if inner := e.Unwrap(); inner != nil {
				walk(inner)
			}
		case interface{ Unwrap() []error }:
			for _, inner := range e.Unwrap() {
				walk(inner)
			}
		}
	}
	walk(err)
	return text
}

// plain returns the text for an error of Go's own packages, or nothing for another.
func plain(err error) string {
	switch e := err.(type) {
	case *fs.PathError:
		return e.Path + ": " + Plain(e.Err)
	case *os.LinkError:
		return e.New + ": " + Plain(e.Err)
	case *os.SyscallError:
		return Plain(e.Err)
	case *net.DNSError:
		switch {
		case e.IsNotFound:
			return "no host of this name is known"
		case e.IsTimeout:
			return "the name service does not answer"
		}
		why := e.Err[strings.LastIndex(e.Err, ": ")+1:] // behind the operations
		return "the name service " + e.Server + " cannot be asked: " + strings.TrimSpace(why)
	case *net.OpError:
		words := Plain(e.Err)
		if _, named := errors.AsType[*net.DNSError](e.Err); !named && e.Addr != nil {
			words = e.Addr.String() + ": " + words
		}
		return words
	case *net.AddrError:
		return e.Addr + ": " + e.Err
	case *json.SyntaxError, *json.UnmarshalTypeError:
		return "it is not the JSON that is expected"
	}
	switch err {
	case context.Canceled:
		return "interrupted"
	case context.DeadlineExceeded, os.ErrDeadlineExceeded:
		return "no answer in time"
	case io.EOF:
		return "the other side closed it"
	case io.ErrUnexpectedEOF:
		return "it ends early"
	case syscall.ECONNREFUSED:
		return "nothing listens there (connection refused)"
	case net.ErrClosed:
		return "it is closed"
	}
	if e, ok := err.(net.Error); ok && e.Timeout() && errors.Unwrap(err) == nil {
		if _, number := err.(syscall.Errno); !number {
			return "no answer in time" // of a dial whose deadline has passed
		}
	}
	return ""
}
