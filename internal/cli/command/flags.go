package command

import (
	"errors"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// A value reads the argument of a flag. Its error says what the flag accepts.
type value[T any] struct {
	to    *T
	kind  string // as help names it
	read  func(string) (T, error)
	write func(T) string
}

func (v value[T]) String() string { return v.write(*v.to) }
func (v value[T]) Type() string   { return v.kind }

func (v value[T]) Set(given string) error {
	read, err := v.read(given)
	if err == nil {
		*v.to = read
	}
	return err
}

// Duration defines a flag for a time span.
func Duration(flags *pflag.FlagSet, name string, usual time.Duration, usage string) *time.Duration {
	to := usual
	flags.Var(value[time.Duration]{&to, "DURATION", func(given string) (time.Duration, error) {
		d, err := time.ParseDuration(given)
		if err != nil {
			return 0, errors.New("a DURATION is a number with its unit, such as 500ms, 30s or 2m")
		}
		return d, nil
	}, time.Duration.String}, name, usage)
	return &to
}

// Number defines a flag for a whole number.
func Number(flags *pflag.FlagSet, name string, usual int, usage string) *int {
	to := usual
	flags.Var(value[int]{&to, "NUMBER", func(given string) (int, error) {
		n, err := strconv.Atoi(given)
		if err != nil {
			return 0, errors.New("a NUMBER has digits only")
		}
		return n, nil
	}, strconv.Itoa}, name, usage)
	return &to
}

// Port defines a flag for a port, which is 0 unless it is given or there is a usual one.
func Port(flags *pflag.FlagSet, name string, usual uint16, usage string) *uint16 {
	to := usual
	flags.Var(value[uint16]{&to, "PORT", func(given string) (uint16, error) {
		n, err := strconv.ParseUint(given, 10, 16)
		if err != nil {
			return 0, errors.New("a PORT is a number up to 65535")
		}
		return uint16(n), nil
	}, func(port uint16) string { return strconv.Itoa(int(port)) }}, name, usage)
	return &to
}
