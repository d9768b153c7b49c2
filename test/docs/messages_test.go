package docs_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The page says of messages what they mean. Its tables have them in their first column, as code: in angle brackets and
// for three dots there is something else each time.
const messagePage = "docs/TROUBLESHOOTING.md"

var (
	ofTests = regexp.MustCompile(`^(test.*|printed)$`) // packages that are not in the executable
	// What is in these files nobody is told: help, metrics, pages; or at once, about the words of a command line; or only
	// as the end of a line that is on the page, about a peer that breaks a protocol.
	notMessages = regexp.MustCompile(`(^|/)(status/metrics|node/frame|` +
		`streams/(hello|frames|framereader|recv|errors|link_quic|slot|confirm)|epmd/protocol|webdist/(carrier_websocket|prefixed)|` +
		`erlang/src/(quic_dist_(proto|config|option_type|option|source|kernel|info)|webdist_config))\.|` +
		`^(portproto|internal/(cli|lanes|erlang/(etf|term|signals)))/`)
	// Single texts of other files that are no messages of an operator's either.
	notMessage = []string{
		"/proc/", "Content-", "Connection: close", "default-src", "HTTP/1.1 ", "Usage", "kernel/include", "X-",
		"Cross-Origin", "Sec-",
		"the sidecar stops", "the VM asked to stop, or is gone", // the ends of what is stopped
		// of the VM's breaches
		"a verdict on attempt", "an answer to question", "which was never asked", "request", "channel", "data or credit on",
		"data without credit", "credit over the limit",
		"a registration with a file", "a message of", "the message is too long, or has",
		"nothing is wanted", "already listens at", "idle timeout",
		"targets: there must be", "lanes,",
		"stream", "a lane before", "news of", "another address was faster", "the channel did not come about", "join: channel",
		"resume: channel", "hello: resume", "hello: place", "hello: meeting",
		"a marker of", "usage:", "unknown (quic_dist.app", "-s -w -buildid", "erlang/src/", "not a range of ports",
		"a monitor of",
		// of level debug
		"no node and no host", "no other QUIC connection yet", "another sidecar is at", "a request of", "a socket of family", "/memory/", "data plane socket", "list the nodes of",
		"serve the web port", "question to the port mapper not answered",
		"discovery is", "this source has no list of nodes", "the ClientHello is read",
		"the message is too long, or has too many descriptors",
		"from its name", "show the help of", "epmd at says so", "its net_kernel answers", "quicdistd is the sidecar",
	}
)

// Errors that the page need not repeat. Lines of the log are on the page, whatever they say.
var (
	saysTheCure = regexp.MustCompile(`(?i)(^|[:;,.] |and |\()(set|use|give|name|choose|correct|convert|chmod|renew|make|move|remove|` +
		`check|raise|install|end|add|put|build|start) [-a-z+]|accepted is|has to be`)
	saysAll = []string{
		// pieces of texts that tell the cure in another piece
		"the first part is not a UDP port", "the option allow names no tools", "those of relx and quicdistd", "set after distribution",
		"-proto_dist is given", "QUIC_DIST_EXECUTABLE, a path", "QUIC_DIST_MIRROR, the URL",
		// a file, an address or a word of the configuration: what is wrong with it
		"holds no certificate, only", "of the file cannot be read", "the private key cannot be read", "the key cannot be decrypted",
		"belongs to certificate", "TLS cannot sign", "the file is empty", "is not PEM", "it has more than", "is not an address",
		"is not an http URL", "does not begin with http", "has no path that can be asked for", "is not a file of",
		"this host has no", "a link-local address needs", "sending there is not permitted", "lines for", "no route from this host", "nothing listens on this UDP port",
		"every user of this host can read", "this one has no node to register", "is of user", "is not the VM", "no channel waits for this token",
		// a request that cannot be met: why
		"nodes have settings of their own", "there are qlog and", "There is no sidecar", "There are no figures", "there are 1024 subscribers",
		"events are held up", "with no port cannot be registered", "there is no list of nodes",
		"this node takes no connections", "does not listen any more", "the option urls has no URL",
		"is not on the allow list", "and there is no allow list", "connect to the node:",
		"has no address that another host could have", "it lacks the capabilities", "it speaks version 5", "over https a node proves",
		"as this node: the address it dialled leads back",
		// a peer or a client breaks the protocol: the page has one paragraph on the kind
		"the peer breaks the protocol", "a status that ends early", "a challenge that ends early", "it calls this node",
		"it calls itself", "that does not belong there", "the client calls itself", "is cut short", "is not how the expected message",
		"the distribution handshake begins", "the distribution handshake does not begin", "read the first message",
		"an HTTP/3 server without", "too many answers that announce",
		"a process that ended without a reason", "cannot be said in a distribution handshake",
		// answers to a client of the web port, which its operator sees
		"the path is not /erl/", "or by HTTP/1.1", "an upgrade has no body", "upgrade the connection to", "too many requests run",
		"too many connections are being opened", "too many upgrades at a time", "web request passed on",
		"a ClientHello that does not end",
		// normal, or of a system that lacks something, which costs nothing
		"is known for Linux only", "the socket data plane needs Linux", "No peer is connected",
		"closed by the peer", "closed by this node", "the connection has ended", "ended before the VM",
		"the process at the other end", "not a connection that can be",
	}
)

// messageFolders are the packages of the executable, where messages come from.
func messageFolders(t *testing.T) (folders []string) {
	t.Helper()
	for _, root := range []string{"cmd", "portproto", "streams", "internal"} {
		err := filepath.WalkDir(filepath.Join(top, root), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if files, _ := filepath.Glob(filepath.Join(path, "*.go")); !entry.IsDir() || len(files) == 0 ||
				ofTests.MatchString(entry.Name()) {
				return nil
			}
			folder, err := filepath.Rel(top, path)
			folders = append(folders, filepath.ToSlash(folder))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return folders
}

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
	for _, dir := range messageFolders(t) {
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

// beginning is what a reader searches for: the first words of a text, at least four if it has them. The page may leave
// out the rest.
func beginning(pieces []string) (first []string) {
	const enough = 4
	n := 0
	for _, piece := range pieces {
		f := strings.Fields(normal(piece))
		f = f[:min(enough, len(f))]
		if piece = strings.Trim(strings.Join(f, " "), " :;,()"); words(piece) >= 2 {
			first = append(first, piece)
		}
		if n += len(f); n >= enough {
			break
		}
	}
	return first
}

// Nothing is said that is not explained: each line that the sources can log at warning or error, and each error that an
// operator may be told, is on the page, but for errors that say all themselves.
func TestEachMessageOfTheSourcesIsOnThePage(t *testing.T) {
	var page strings.Builder
	page.WriteString("\n")
	for _, message := range onPage(t) {
		page.WriteString(normal(message) + "\n")
	}
	checked, logged, told := 0, 0, 0
	used := make([]bool, len(saysAll))
	for _, text := range allTexts(t) {
		whole := normal(strings.Join(text.pieces, " "))
		if !text.log && (notMessages.MatchString(text.where) || words(whole) < 4 ||
			slices.ContainsFunc(notMessage, func(s string) bool { return strings.HasPrefix(whole, s) })) {
			continue
		}
		listed := slices.IndexFunc(saysAll, func(s string) bool { return strings.Contains(whole, s) })
		if listed >= 0 {
			used[listed] = true
		}
		if !text.log && (saysTheCure.MatchString(whole) || listed >= 0) {
			told++
			continue
		}
		checked++
		if text.log {
			logged++
		}
		for _, piece := range beginning(text.pieces) {
			if !strings.Contains(page.String(), piece) {
				t.Errorf("%s: the page lacks %q", text.where, piece)
			}
		}
	}
	for i, s := range saysAll {
		if !used[i] {
			t.Errorf("saysAll has %q, which nobody says", s)
		}
	}
	t.Logf("%d messages, %d of them lines of the log; %d more say all themselves", checked, logged, told)
	if checked < 150 || logged < 25 {
		t.Errorf("only %d messages, %d of them lines of the log, were found in the sources", checked, logged)
	}
}

// Lines of the log whose text is made elsewhere are few, and known: what makes them is in the sources of the test
// above.
func TestLinesOfTheLogAreConstant(t *testing.T) {
	var unknown []string
	for _, dir := range messageFolders(t) {
		_, found := goTexts(t, dir)
		for _, where := range found {
			file, _, _ := strings.Cut(where, ":")
			unknown = append(unknown, file)
		}
	}
	want := []string{ // the warnings of identity.go, identity_reload.go and identity_trust.go
		"internal/session/configure.go", "streams/reload.go", "streams/reload.go",
		"streams/trust.go",
	}
	slices.Sort(unknown)
	if !slices.Equal(unknown, want) {
		t.Errorf("calls of Warn and Error with other texts than constants: in %q, not in %q", unknown, want)
	}
}
