package cli

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"

	"quic_dist/internal/cli/command"
)

// Wrong command lines are answered with one line, which names the mistake, what was probably meant, and where help is.
func TestUsageErrorsAreOneLine(t *testing.T) {
	for line, want := range map[string]string{
		"call a@h m":               "quicdistd call: the argument FUNCTION is missing. See quicdistd call -h",
		"call a@h m f [] more":     `quicdistd call: "more" is one argument too many. See quicdistd call -h`,
		"doctor a@h --cooki x":     "quicdistd doctor: there is no option --cooki; did you mean --cookie-file? See quicdistd doctor -h",
		"doctor a@h -cooki x":      "quicdistd doctor: there is no option --cooki; did you mean --cookie-file? See quicdistd doctor -h",
		"ping a@h --cont 3":        "quicdistd ping: there is no option --cont; did you mean --count? See quicdistd ping -h",
		"ping a@h --cert x":        "quicdistd ping: there is no option --cert; did you mean --certfile? See quicdistd ping -h",
		"ping a@h --frobnicate":    "quicdistd ping: there is no option --frobnicate. See quicdistd ping -h",
		"ping a@h -x":              "quicdistd ping: there is no option -x. See quicdistd ping -h",
		"ping a@h --timeout":       "quicdistd ping: --timeout needs a value: --timeout DURATION. See quicdistd ping -h",
		"ping a@h --cookie-file":   "quicdistd ping: --cookie-file needs a value: --cookie-file FILE. See quicdistd ping -h",
		"ping a@h --timeout soon":  `quicdistd ping: --timeout "soon": a DURATION is a number with its unit, such as 500ms, 30s or 2m. See quicdistd ping -h`,
		"ping a@h --count many":    `quicdistd ping: --count "many": a NUMBER has digits only. See quicdistd ping -h`,
		"names --web-port 70000":   `quicdistd names: --web-port "70000": a PORT is a number up to 65535. See quicdistd names -h`,
		"names --json=x":           `quicdistd names: --json "x": it takes no value. See quicdistd names -h`,
		"names --=x":               `quicdistd names: "--" is no option. See quicdistd names -h`,
		"cert":                     "quicdistd cert: which command? See quicdistd cert -h",
		"cert nod":                 `quicdistd cert: there is no command "nod"; did you mean node? See quicdistd cert -h`,
		"cert node a@h --dais 1":   "quicdistd cert node: there is no option --dais; did you mean --days? See quicdistd cert node -h",
		"version please":           `quicdistd version: "please" is one argument too many. See quicdistd version -h`,
		"help cal":                 `quicdistd: there is no command "cal"; did you mean call? See quicdistd -h`,
		"ping a@h -cookie=hidden":  "quicdistd ping: there is no option --cookie; did you mean --cookie-file? See quicdistd ping -h",
		"ping a@h --cookie=hidden": "quicdistd ping: there is no option --cookie; did you mean --cookie-file? See quicdistd ping -h",
	} {
		r := run(t, nil, strings.Fields(line)...)
		if r.status != command.Usage || r.out != "" || r.err != want+"\n" {
			t.Errorf("%s: status %d\n%s%swant\n%s", line, r.status, r.out, r.err, want)
		}
	}
}

// Help names the value of an option in one style, and prints options with two dashes.
func TestHelpHasOneStyle(t *testing.T) {
	option := regexp.MustCompile(`(?m)^ +(?:-h, )?(-+)([a-z-]+)(?: ([^ ]+))?  +\S`)
	styled := regexp.MustCompile(`^[A-Z]+(:[A-Z]+)?$`)
	flags := map[string]bool{"json": true, "help": true}
	for _, line := range []string{"call", "ping", "doctor", "names", "cert ca", "cert node", "cert show", "cert verify",
		"version", "help"} {
		r := run(t, nil, append(strings.Fields(line), "-h")...)
		found := option.FindAllStringSubmatch(r.out, -1)
		if len(found) == 0 {
			t.Errorf("%s -h has no options:\n%s", line, r.out)
		}
		for _, m := range found {
			if m[1] != "--" || flags[m[2]] != (m[3] == "") || m[3] != "" && !styled.MatchString(m[3]) {
				t.Errorf("%s -h: %q", line, m[0])
			}
		}
		if strings.Contains(r.out, " -ca") || strings.Contains(r.out, "`") {
			t.Errorf("%s -h: another style\n%s", line, r.out)
		}
	}
}

// No message shows how Go's packages call their operations.
func TestMessagesAreNotGos(t *testing.T) {
	gos := regexp.MustCompile(`\b(dial|read|write) (tcp|udp|unix)|connect: |lookup |\bopen /|context |strconv|parsing|invalid (syntax|argument|character)|i/o timeout|\bEOF\b|unmarshal|mkdir`)
	epmdEnds, _ := mapper(t, "")
	epmdShort, _ := mapper(t, "w")
	silent := stranger(t, func([]byte) []byte { return nil })
	_, silentPort, _ := strings.Cut(silent, ":")
	dir := t.TempDir()
	for _, line := range []string{
		"ping a@127.0.0.1 --epmd-port 1",
		"ping a@127.0.0.1 --epmd-port " + epmdEnds,
		"ping a@127.0.0.1 --epmd-port " + epmdShort,
		"ping a@h --address 127.0.0.1:1",
		"ping a@h --address " + silent + " --timeout 300ms",
		"ping 1@no-such-host.invalid",
		"ping a@no-such-host.invalid",
		"ping a@h --discovery dns --dns-server " + silent + " --timeout 300ms",
		"ping a@h --discovery dns --dns-server 127.0.0.1:1 --timeout 2s",
		"ping a@h --cookie-file /no/such",
		"ping a@h --cookie-file " + dir,
		"ping a@h --nodes-file /no/such",
		"ping a@h --password-file /no/such",
		"ping a@h --certfile /no/such",
		"ping a@h --certfile " + dir,
		"ping a@h --timeout x", "ping a@h --count x", "ping a@h --epmd-port x", "ping a@h --json=x", "ping a@h --address h:x",
		"names 127.0.0.1 --epmd-port 1 --web-port 1",
		"names 127.0.0.1 --epmd-port " + epmdShort + " --web-port " + epmdShort,
		"names no-such-host.invalid",
		"names 127.0.0.1 --timeout 1ns",
		"doctor a@h --address 127.0.0.1:1", "doctor a@h --address " + silent, "doctor a@127.0.0.1 --epmd-port " + silentPort,
		"call a@h m f [", "call a@h m f 1.e",
		"cert ca --out /no/such/folder", "cert show /no/such", "cert show " + dir, "cert node a@h --ca /no/such",
		"cert verify a@h /no/such",
		"cert ca --days x",
	} {
		r := run(t, nil, strings.Fields(line)...)
		if said := r.out + r.err; r.status == 0 || said == "" || gos.MatchString(said) {
			t.Errorf("%s: status %d\n%s", line, r.status, said)
		}
	}
}

// A command that is ended by hand says so.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var stderr bytes.Buffer
	silent := stranger(t, func([]byte) []byte { cancel(); return nil })
	status := Main(ctx, Config{
		Args: []string{"ping", "a@h", "--address", silent}, Stdout: &stderr, Stderr: &stderr,
		Getenv: func(string) string { return cookieIn(t, "secret", 0o400) },
	})
	if status == 0 || strings.Contains(stderr.String(), "context") {
		t.Errorf("status %d, %s", status, &stderr)
	}
}
