package docs_test

import (
	"regexp"
	"strings"
	"testing"
)

// What of the repository a dependency names.
var version = regexp.MustCompile(`\b(?:branch|tag)(,|:) "[^"]*"`)

// The settings of the quick start and of README.md for rebar3 and mix are those of the projects of test/consumers,
// which are built and run.
func TestTheQuickStartIsThatOfTheConsumers(t *testing.T) {
	lines := func(page, from, to string) (lines []string) {
		_, section, ok := strings.Cut(read(t, page), from)
		if !ok {
			t.Fatalf("%s lacks %q", page, from)
		}
		section, _, _ = strings.Cut(section, to)
		for line := range strings.Lines(section) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "```") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	for _, block := range []struct{ page, from, file string }{
		{"docs/QUICKSTART.md", "%% rebar.config\n", "test/consumers/rebar3/rebar.config"},
		{"docs/QUICKSTART.md", "## config/vm.args.src\n", "test/consumers/rebar3/config/vm.args.src"},
		{"docs/QUICKSTART.md", "# mix.exs\n", "test/consumers/mix/mix.exs"},
		{"docs/QUICKSTART.md", "# rel/vm.args.eex\n", "test/consumers/mix/rel/vm.args.eex"},
		{"docs/QUICKSTART.md", "# rel/remote.vm.args.eex: for remote, rpc and stop\n",
			"test/consumers/mix/rel/remote.vm.args.eex"},
		{"docs/QUICKSTART.md", "# rel/env.sh.eex\n", "test/consumers/mix/rel/env.sh.eex"},
		{"README.md", "<!-- tested by: test/docs/quickstart_test.go -->\n```erlang\n", "test/consumers/rebar3/rebar.config"},
		{"README.md", "<!-- tested by: test/docs/quickstart_test.go -->\n```elixir\n", "test/consumers/mix/mix.exs"},
		{"README.md", "-name 4370@host.example.org\n", "test/consumers/rebar3/config/vm.args.src"},
	} {
		squeeze := strings.NewReplacer(" ", "", "\n", "", "URL of this repository", "URL", "myapp", "consumer", "1.0.0",
			"VERSION").Replace
		has := squeeze(read(t, block.file))
		shown := lines(block.page, block.from, "\n```\n")
		if len(shown) == 0 {
			t.Errorf("nothing is shown of %s", block.file)
		}
		for _, line := range shown {
			if !strings.Contains(has, strings.TrimSuffix(squeeze(version.ReplaceAllString(line, `tag$1"TAG"`)), ".")) {
				t.Errorf("%s has no line %s", block.file, line)
			}
		}
	}
}
