package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Arguments checks the arguments of a command against the words in its Use. Words in brackets may be missing.
func Arguments(cmd *cobra.Command, given []string) error {
	names := strings.Fields(cmd.Use)[1:]
	if len(given) > len(names) {
		return fmt.Errorf("%q is one argument too many", given[len(names)])
	}
	if len(given) < len(names) && !strings.HasPrefix(names[len(given)], "[") {
		return fmt.Errorf("the argument %s is missing", names[len(given)])
	}
	return nil
}

// flagError says what is wrong with a flag.
func flagError(cmd *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		name := e.GetSpecifiedName()
		if letters := e.GetSpecifiedShortnames(); letters != "" {
			name = letters // of a word behind one dash
		}
		name, _, _ = strings.Cut(name, "=") // what is behind it may be a secret
		dashes := "--"
		if len(name) == 1 {
			dashes = "-"
		}
		words := fmt.Sprintf("there is no option %s%s", dashes, name)
		if near := nearest(cmd.Flags(), name); near != "" {
			words += "; did you mean --" + near + "?"
		}
		return errors.New(words)
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		kind, _ := pflag.UnquoteUsage(e.GetFlag())
		return fmt.Errorf("--%s needs a value: --%[1]s %s", e.GetFlag().Name, kind)
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		why := "it takes no value"
		if _, known := e.GetFlag().Value.(interface{ IsBoolFlag() bool }); !known {
			why = errors.Unwrap(e).Error()
		}
		return fmt.Errorf("--%s %q: %s", e.GetFlag().Name, e.GetValue(), why)
	}
	if e, ok := errors.AsType[*pflag.InvalidSyntaxError](err); ok {
		name, _, _ := strings.Cut(e.GetSpecifiedFlag(), "=")
		return fmt.Errorf("%q is no option", name)
	}
	return err
}

// nearest returns the flag that the user may have meant: one that begins with name, or differs by at most two letters.
func nearest(flags *pflag.FlagSet, name string) (near string) {
	least := min(2, len(name)/2) + 1
	flags.VisitAll(func(f *pflag.Flag) {
		d := distance(f.Name, name)
		for n := len(name); n >= 3 && d > 1; n-- { // a beginning, or one with a mistake
			if n < len(f.Name) && distance(f.Name[:n], name) <= 1 {
				d = 1
			}
		}
		if d < least {
			near, least = f.Name, d
		}
	})
	return near
}

// distance is the number of letters to insert, leave out or replace to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			corner = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
