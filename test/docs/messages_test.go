package docs_test

import (
	"testing"
	"strings"
)

func TestDump(t *testing.T) {
	for _, dir := range []string{"streams", "discovery", "registry", "epmd", "web", "status", "nodename", "certs", "cli", "dist", "cmd/quicdistd", "lanes", "command"} {
		texts, unknown := goTexts(t, dir)
		for _, x := range texts {
			if x.log || words(strings.Join(x.pieces, " ")) >= 3 {
				t.Log(x.where, x.log, strings.Join(x.pieces, " | "))
			}
		}
		for _, u := range unknown {
			t.Log("UNKNOWN", u)
		}
	}
	for _, f := range append(glob(t, "erlang/src/*.erl"), "scripts/executable.escript") {
		for _, x := range erlangTexts(t, f) {
			if x.log || words(strings.Join(x.pieces, " ")) >= 3 {
				t.Log(x.where, x.log, strings.Join(x.pieces, " | "))
			}
		}
	}
}
