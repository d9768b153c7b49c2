package docs_test

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The page says of messages what they mean. Its tables have them in their first column, as code: in angle brackets and for three
// dots there is something else each time.
const messagePage = "docs/TROUBLESHOOTING.md"

// Where messages come from.
var (
	messageFolders = []string{
		"streams", "discovery", "registry", "epmd", "web", "status", "nodename", "certs", "cli", "dist", "cmd/quicdistd", "command",
	}
	// What is in these files nobody is told: help, metrics, pages; or only as the end of a line that is on the page, about a peer
	// that breaks a protocol.
	notMessages = regexp.MustCompile(`^(status/metrics|certs/command|cli/(cli|target|call|doctor|names|ping|session|askquic)|dist/frame|` +
		`streams/(hello|frames|items|inbox|errors|authenticate_kdf)|epmd/protocol|web/(websocket|prefixed|stream)|` +
		`erlang/src/(quic_dist_(proto|config|info)|webdist_config))\.`)
	// Single texts of other files that are no messages of an operator's either.
	notMessage = []string{
		"/proc/", "Content-", "Connection: close", "default-src", "HTTP/1.1 ", "Usage", "kernel/include", "X-", "Cross-Origin", "Sec-",
		"the sidecar stops", "the VM asked to stop, or is gone", // the ends of what is stopped
		"a verdict on attempt", "request", "channel", "data or credit on", "data without credit", "credit over the limit", // of the VM's breaches
		"a hello with a file", "a message of", "nothing is wanted", "already listens at", "idle timeout", "targets: there must be", "lanes,",
		"stream", "a lane before", "news of", "another address was faster", "the channel did not come about", "join: channel",
		"a note of", "usage:", "unknown (quic_dist.app", "-s -w -buildid", "erlang/src/", "not a range of ports", "a monitor of",
		"no node and no host", "a request of", "a socket of family", "/memory/", "data plane socket", "list the nodes of", "serve the web port", "a question for names was not answered", // of level debug
		"the port is its name", "epmd at says so", "its net_kernel answers", "quicdistd is the sidecar",
	}
)

// normal is a text as it is compared: without what Markdown or a source escapes.
func normal(s string) string {
	return strings.TrimSpace(spaces.ReplaceAllString(strings.NewReplacer(`\"`, `"`, `\|`, "|", `\\`, `\`).Replace(s), " "))
}

// onPage are the messages on the page, in their fixed pieces.
func onPage(t *testing.T) (messages []string) {
	t.Helper()
	for line := range strings.Lines(read(t, messagePage)) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		first, _, _ := strings.Cut(strings.ReplaceAll(line[2:], `\|`, "\x01"), " | ")
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(first, -1) {
			messages = append(messages, strings.ReplaceAll(m[1], "\x01", "|"))
		}
	}
	if len(messages) < 100 {
		t.Fatalf("%d messages on the page", len(messages))
	}
	return messages
}

func allTexts(t *testing.T) (texts []text) {
	t.Helper()
	for _, dir := range append(slices.Clone(messageFolders), "lanes", "etf", "erlterm", "portproto") {
		found, _ := goTexts(t, dir)
		texts = append(texts, found...)
	}
	for _, file := range append(glob(t, "erlang/src/*.erl"), "scripts/executable.escript") {
		texts = append(texts, erlangTexts(t, file)...)
	}
	return texts
}

// Nothing is explained that nobody says: the fixed words of each message on the page are in the sources.
func TestEachMessageOfThePageIsInTheSources(t *testing.T) {
	var all strings.Builder
	for _, text := range allTexts(t) {
		for _, piece := range text.pieces {
			all.WriteString("\n" + normal(piece))
		}
	}
	for status := 400; status < 600; status++ {
		all.WriteString(fmt.Sprintf("\n%d %s", status, http.StatusText(status)))
	}
	said := all.String()
	varies := regexp.MustCompile(`( [a-z]+=)?(<[^>]*>|\.\.\.)`)
	for _, message := range onPage(t) {
		for _, piece := range varies.Split(message, -1) {
			if piece = strings.Trim(normal(piece), " :;,()"); word.MatchString(piece) && !strings.Contains(said, piece) {
				t.Errorf("nobody says %q of %q", piece, message)
			}
		}
	}
}

// Nothing is said that is not explained: each line that the sources can log at warning or error, and each error that an operator
// may be told, is on the page.
func TestEachMessageOfTheSourcesIsOnThePage(t *testing.T) {
	var page strings.Builder
	page.WriteString("\n")
	for _, message := range onPage(t) {
		page.WriteString(normal(message) + "\n")
	}
	checked, logged := 0, 0
	for _, text := range allTexts(t) {
		whole := normal(strings.Join(text.pieces, " "))
		if !text.log && (notMessages.MatchString(text.where) || words(whole) < 4 || strings.HasPrefix(text.where, "lanes/") ||
			strings.HasPrefix(text.where, "etf/") || strings.HasPrefix(text.where, "erlterm/") || strings.HasPrefix(text.where, "portproto/") ||
			slices.ContainsFunc(notMessage, func(s string) bool { return strings.HasPrefix(whole, s) })) {
			continue
		}
		checked++
		if text.log {
			logged++
		}
		for _, piece := range text.pieces {
			piece = strings.Trim(normal(piece), " :;,()")
			if words(piece) >= 2 && !strings.Contains(page.String(), piece) {
				t.Errorf("%s: the page lacks %q", text.where, piece)
			}
		}
	}
	t.Logf("%d messages, %d of them lines of the log", checked, logged)
	if checked < 150 || logged < 25 {
		t.Errorf("only %d messages, %d of them lines of the log, were found in the sources", checked, logged)
	}
}

// Lines of the log whose text is made elsewhere are few, and known: what makes them is in the sources of the test above.
func TestLinesOfTheLogAreConstant(t *testing.T) {
	var unknown []string
	for _, dir := range messageFolders {
		_, found := goTexts(t, dir)
		for _, where := range found {
			file, _, _ := strings.Cut(where, ":")
			unknown = append(unknown, file)
		}
	}
	want := []string{ // the warnings of identity.go, identity_reload.go and identity_trust.go
		"cmd/quicdistd/bridge.go", "streams/identity_reload.go", "streams/identity_reload.go", "streams/identity_trust.go",
	}
	slices.Sort(unknown)
	if !slices.Equal(unknown, want) {
		t.Errorf("calls of Warn and Error with other texts than constants: in %q, not in %q", unknown, want)
	}
}
