package structure_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The modules of the application. Only calls count: a module may name another's types, and the module of a process that it
// starts or a callback that it is given.
var erlangFloors = []floor{
	{"carriers, the epmd module of webdist, interfaces", []string{
		"quic_dist", "webdist_dist", "webdist_epmd", "webdist", "quic_dist_app",
	}},
	{"other ways to a peer, the web port, advice", []string{
		"quic_dist_fallback", "webdist_dial", "webdist_server", "quic_dist_advice", "quic_dist_table",
	}},
	{"net_kernel's side, names, data planes, figures", []string{
		"quic_dist_setup", "quic_dist_names", "quic_dist_peer", "quic_dist_plane", "quic_dist_socket", "quic_dist_stdio",
		"quic_dist_local", "webdist_link", "quic_dist_info", "quic_dist_trace",
	}},
	{"channels, links, the registration", []string{"quic_dist_channel", "quic_dist_links", "quic_epmd"}},
	{"the sidecar", []string{"quic_dist_sidecar"}},
	{"parts of the sidecar, features with routes", []string{
		"quic_dist_router", "quic_dist_owners", "quic_dist_feature", "quic_dist_pulse", "quic_dist_executable",
		"quic_dist_admit", "quic_dist_hosts", "quic_dist_events", "quic_dist_report", "quic_dist_meeting",
	}},
	{"options", []string{
		"quic_dist_config", "webdist_config", "quic_dist_option", "quic_dist_option_type", "quic_dist_source",
	}},
	{"ground", []string{
		"quic_dist_pipe", "quic_dist_proto", "quic_dist_inet", "quic_dist_kernel", "quic_dist_log", "quic_dist_repeats",
		"quic_dist_sup", "webdist_sup", "webdist_limit",
	}},
}

// onlyIn names functions that one module alone may call: each piece of knowledge has one place.
var onlyIn = map[string]*regexp.Regexp{
	"quic_dist_pipe":  regexp.MustCompile(`\bopen_port\(`),
	"quic_dist_proto": regexp.MustCompile(`\b(?:term_to_binary|term_to_iovec|binary_to_term)\(`),
}

var (
	// notCode are a comment, a string, a quoted atom, and a character.
	notCode = regexp.MustCompile(`%[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\$(?:\\.|[^\\])`)
	// ofTypes are the attributes that call nothing.
	ofTypes    = regexp.MustCompile(`(?ms)^-(?:spec|type|opaque|callback|record|export_type)\b.*?\.$`)
	remoteCall = regexp.MustCompile(`\b([a-z]\w*)\s*:\s*[a-z]\w*\s*[(/]`)
	edocOfTop  = regexp.MustCompile(`(?m)\A(?:%%.*\n)+`)
)

// No module calls one above it, no circle of calls exists, and DESIGN.md shows the modules as they are.
func TestModules(t *testing.T) {
	files, err := filepath.Glob(top + "/erlang/src/*.erl")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d modules, %v", len(files), err)
	}
	h := house{erlangFloors, map[string][]string{}}
	purpose, code := map[string]string{}, map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		module := strings.TrimSuffix(filepath.Base(file), ".erl")
		doc := strings.ReplaceAll(edocOfTop.FindString(string(text)), "%%", "")
		words := strings.Join(strings.Fields(strings.TrimPrefix(strings.TrimSpace(doc), "@doc")), " ")
		sentence, _, _ := strings.Cut(words, ". ")
		purpose[module] = strings.TrimSuffix(sentence, ".") + "."
		code[module] = ofTypes.ReplaceAllString(notCode.ReplaceAllString(string(text), " "), "")
	}
	for module, text := range code {
		h.uses[module] = nil
		for owner, call := range onlyIn {
			if found := call.FindString(text); found != "" && module != owner {
				t.Errorf("%s calls %s...): that is for %s only", module, found, owner)
			}
		}
		for _, call := range remoteCall.FindAllStringSubmatch(text, -1) {
			if _, ours := code[call[1]]; ours && call[1] != module {
				h.uses[module] = append(h.uses[module], call[1])
			}
		}
		slices.Sort(h.uses[module])
		h.uses[module] = slices.Compact(h.uses[module])
	}
	h.check(t)
	inDesign(t, "modules", h.picture())
	inDesign(t, "what modules are for", h.table(purpose))
}
