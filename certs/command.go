package certs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"quic_dist/streams"
)

// Exit statuses of [Main].
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const (
	day        = 24 * time.Hour
	caDays     = 3650
	nodeDays   = 397
	mostDays   = 36500
	caName     = "ca"
	caFileHelp = "the authority's certificate"
)

const usage = `usage: quicdistd cert COMMAND ...

  ca                make a certificate authority: ca.pem and ca.key
  node NAME         make the certificate of a node, such as app@host.example.org, or of all nodes of a host
  show FILE         say what is in a file of certificates
  verify NAME FILE  check that nodes take the certificate for that of the node

"quicdistd cert COMMAND -h" lists a command's options.
`

// Main runs a command, given what stands behind "quicdistd cert", and returns the exit status: 0; 1 when it could not be done, or
// a certificate is not good; 2 for a wrong command line.
func Main(args []string, stdout, stderr io.Writer) int {
	commands := map[string]func(*command) error{"ca": (*command).ca, "node": (*command).node, "show": (*command).show, "verify": (*command).verify}
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	if slices.Contains([]string{"-h", "-help", "--help", "help"}, args[0]) {
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	run := commands[args[0]]
	if run == nil {
		fmt.Fprintf(stderr, "quicdistd cert: there is no command %q\n%s", args[0], usage)
		return exitUsage
	}
	c := &command{args: args[1:], out: stdout, now: time.Now(), flags: flag.NewFlagSet("quicdistd cert "+args[0], flag.ContinueOnError)}
	var said strings.Builder // of package flag: the usage, and what is wrong
	c.flags.SetOutput(&said)
	switch err := run(c); {
	case err == nil:
		return exitOK
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, said.String())
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprint(stderr, said.String())
		return exitUsage
	default:
		fmt.Fprintf(stderr, "quicdistd cert %s: %v\n", args[0], err)
		return exitFailed
	}
}

// A command is a run of one.
type command struct {
	args  []string
	flags *flag.FlagSet
	out   io.Writer
	now   time.Time
}

// parse returns the arguments that are no options, of which there are to be as many as names. Options may stand anywhere.
func (c *command) parse(names ...string) ([]string, error) {
	c.flags.Usage = func() {
		words := append([]string{c.flags.Name()}, names...)
		fmt.Fprintf(c.flags.Output(), "usage: %s [OPTIONS]\n", strings.Join(words, " "))
		c.flags.PrintDefaults()
	}
	var given []string
	for rest := c.args; ; {
		if err := c.flags.Parse(rest); errors.Is(err, flag.ErrHelp) {
			return nil, err
		} else if err != nil {
			return nil, errUsage // package flag has said it
		}
		if c.flags.NArg() == 0 {
			break
		}
		given = append(given, c.flags.Arg(0))
		rest = c.flags.Args()[1:]
	}
	if len(given) != len(names) {
		fmt.Fprintf(c.flags.Output(), "%d arguments (%s), want %d\n", len(given), strings.Join(given, " "), len(names))
		c.flags.Usage()
		return nil, errUsage
	}
	return given, nil
}

func (c *command) say(format string, args ...any) { fmt.Fprintf(c.out, format, args...) }

func life(days int) (time.Duration, error) {
	if days < 1 || days > mostDays {
		return 0, fmt.Errorf("-days %d: it must be 1 to %d", days, mostDays)
	}
	return time.Duration(days) * day, nil
}

func (c *command) ca() error {
	out := c.flags.String("out", ".", "the `folder` for ca.pem and ca.key")
	name := c.flags.String("name", "", "what people are to read as the authority's `name`")
	days := c.flags.Int("days", caDays, "for how many `days` it is valid")
	if _, err := c.parse(); err != nil {
		return err
	}
	valid, err := life(*days)
	if err != nil {
		return err
	}
	authority, err := NewAuthority(*name, c.now, valid)
	if err != nil {
		return err
	}
	files, err := pair(*out, caName, authority.Cert, authority.Key)
	if err != nil {
		return err
	}
	if err := create(files); err != nil {
		return err
	}
	c.say("%s: the certificate of the authority %q, valid until %s. Every node needs a copy.\n",
		files[1].name, authority.Cert.Subject.CommonName, stamp(authority.Cert.NotAfter))
	c.say("%s: its private key. Whoever has it can make himself any node: keep it where no node runs, and copy it nowhere.\n", files[0].name)
	c.say("Next: quicdistd cert node app@host.example.org -ca %s\n", files[1].name)
	return nil
}

func (c *command) node() error {
	out := c.flags.String("out", ".", "the `folder` for NAME.pem and NAME.key")
	caFile := c.flags.String("ca", "ca.pem", caFileHelp+", a `file`")
	caKey := c.flags.String("ca-key", "", "its private key, a `file`; if not given, that beside it with the ending .key")
	days := c.flags.Int("days", nodeDays, "for how many `days` it is valid, but not longer than the authority")
	given, err := c.parse("NAME")
	if err != nil {
		return err
	}
	valid, err := life(*days)
	if err != nil {
		return err
	}
	if *caKey == "" {
		*caKey = strings.TrimSuffix(*caFile, filepath.Ext(*caFile)) + ".key"
	}
	name := given[0]
	if err := checkName(name); err != nil {
		return err
	}
	authority, err := loadAuthority(*caFile, *caKey)
	if err != nil {
		return err
	}
	node, err := authority.Issue(name, c.now, valid)
	if err != nil {
		return err
	}
	// The name as it stands in the certificate has no character that a folder could mind, but for the colons of an IPv6 address.
	base := strings.ReplaceAll(streams.NodeURI(name).Opaque, ":", "%3A")
	files, err := pair(*out, base, node.Cert, node.Key)
	if err != nil {
		return err
	}
	if err := create(files); err != nil {
		return err
	}
	c.say("# %s: the certificate (%s), valid until %s.\n", files[1].name, streams.Names(node.Cert), stamp(node.Cert.NotAfter))
	c.say("# %s: its private key, for the node alone.\n", files[0].name)
	c.say("# Lines for vm.args, with the files where they are now:\n")
	if _, host, whole := strings.Cut(name, "@"); whole {
		flag := "-name"
		if !strings.ContainsAny(host, ".:") {
			flag = "-sname" // what Erlang demands of a host without a dot
		}
		c.say("%s %s\n", flag, word(name))
	}
	c.say("-proto_dist quic\n")
	for _, option := range []struct{ key, file string }{{"certfile", files[1].name}, {"keyfile", files[0].name}, {"cacertfile", *caFile}} {
		path, err := filepath.Abs(option.file)
		if err != nil {
			return err
		}
		c.say("-quic_dist %s '%s'\n", option.key, erlangString(path))
	}
	return nil
}

// word writes a word for vm.args or a shell.
func word(s string) string {
	switch {
	case !strings.ContainsFunc(s, func(r rune) bool {
		return r != '@' && r != ':' && r != '.' && r != '-' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}):
		return s
	case !strings.Contains(s, "'"):
		return "'" + s + "'"
	default:
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(s) + `"`
	}
}

// erlangString writes a string that Erlang reads, and that vm.args and a shell can have in single quotes.
func erlangString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		if r == '"' || r == '\\' || r == '\'' || r < ' ' {
			fmt.Fprintf(&b, `\x%02x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func (c *command) show() error {
	given, err := c.parse("FILE")
	if err != nil {
		return err
	}
	certs, err := streams.LoadCertificates(given[0])
	if err != nil {
		return err
	}
	for i, cert := range certs {
		c.say("%s, certificate %d of %d\n", given[0], i+1, len(certs))
		sum := sha256.Sum256(cert.Raw)
		for _, line := range [][2]string{
			{"subject", fmt.Sprintf("%q", cert.Subject)},
			{"issuer", fmt.Sprintf("%q", cert.Issuer)},
			{"names", streams.Names(cert)},
			{"for", purpose(cert)},
			{"valid", validity(cert, c.now)},
			{"key", keyKind(cert)},
			{"serial", fmt.Sprintf("%x", cert.SerialNumber)},
			{"SHA-256", fmt.Sprintf("%x", sum)},
		} {
			c.say("  %-8s %s\n", line[0], line[1])
		}
	}
	return nil
}

func purpose(cert *x509.Certificate) string {
	if cert.IsCA {
		if cert.MaxPathLen >= 0 && (cert.MaxPathLen > 0 || cert.MaxPathLenZero) {
			return fmt.Sprintf("an authority, with at most %d below it", cert.MaxPathLen)
		}
		return "an authority, with any number below it"
	}
	server, client := slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth), slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	anything := slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny) || len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0
	switch {
	case anything:
		return "a node, dialling and being dialled (no extended key usage is demanded)"
	case server && client:
		return "a node, dialling and being dialled"
	case server:
		return "a node that is dialled, and not one that dials (no client authentication)"
	case client:
		return "a node that dials, and not one that is dialled (no server authentication)"
	}
	return "no node (neither client nor server authentication)"
}

func validity(cert *x509.Certificate, now time.Time) string {
	span := stamp(cert.NotBefore) + " to " + stamp(cert.NotAfter)
	switch {
	case now.Before(cert.NotBefore):
		return span + ", NOT YET VALID"
	case now.After(cert.NotAfter):
		return span + ", EXPIRED"
	}
	return fmt.Sprintf("%s, %d days left", span, int(cert.NotAfter.Sub(now)/day))
}

func keyKind(cert *x509.Certificate) string {
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA, %d bits", key.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return cert.PublicKeyAlgorithm.String()
}

func (c *command) verify() error {
	caFile := c.flags.String("ca", "ca.pem", caFileHelp+", or those of several, a `file`: what nodes have as cacertfile")
	keyFile := c.flags.String("key", "", "the certificate's private key, a `file`, to be checked with it")
	names := c.flags.String("names", "any", "the `rule` that nodes have as certificate_names: any, node or host")
	given, err := c.parse("NAME", "FILE")
	if err != nil {
		return err
	}
	rule, ok := streams.ParseNameRule(*names)
	if !ok {
		return fmt.Errorf("-names %q: it must be any, node or host", *names)
	}
	name, certFile := given[0], given[1]
	if err := checkName(name); err != nil {
		return err
	}
	if !strings.Contains(name, "@") {
		return fmt.Errorf("%q is not a node's name: it is of the form name@host", name)
	}
	if *keyFile != "" {
		if _, err := streams.LoadIdentity(streams.IdentityFiles{CertFile: certFile, KeyFile: *keyFile}); err != nil {
			return err
		}
	}
	chain, err := streams.LoadCertificates(certFile)
	if err != nil {
		return err
	}
	node, err := streams.LoadIdentity(streams.IdentityFiles{CAFile: *caFile})
	if err != nil {
		return err
	}
	config := streams.Config{Identity: node, NameRule: rule}
	if err := config.Judge(chain, name); err != nil {
		return fmt.Errorf("%s is not good for %s. A node with cacertfile %s says: %w", certFile, name, *caFile, err)
	}
	c.say("%s is good for %s, until %s, with nodes that have cacertfile %s.\n", certFile, name, stamp(chain[0].NotAfter), *caFile)
	return nil
}
