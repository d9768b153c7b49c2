package certs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"quic_dist/command"
	"quic_dist/streams"
)

const (
	day        = 24 * time.Hour
	caDays     = 3650
	nodeDays   = 397
	mostDays   = 36500
	caName     = "ca"
	caFileHelp = "the authority's certificate"
)

// Command is quicdistd cert.
func Command() *cobra.Command {
	return command.Group("cert", "make, show and check the certificates of nodes", ca(), node(), show(), verify())
}

// A run is that of one command.
type run struct {
	out io.Writer
	now time.Time
}

// does makes a function what a command does.
func does(f func(c *run, given []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, given []string) error {
		return command.Fail(command.Failed, f(&run{out: cmd.OutOrStdout(), now: time.Now()}, given))
	}
}

func (c *run) say(format string, args ...any) { fmt.Fprintf(c.out, format, args...) }

func life(days int) (time.Duration, error) {
	if days < 1 || days > mostDays {
		return 0, fmt.Errorf("-days %d: it must be 1 to %d", days, mostDays)
	}
	return time.Duration(days) * day, nil
}

func ca() *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "make a certificate authority: ca.pem and ca.key", Args: cobra.NoArgs}
	out := cmd.Flags().String("out", ".", "the `folder` for ca.pem and ca.key")
	name := cmd.Flags().String("name", "", "what people are to read as the authority's `name`")
	days := cmd.Flags().Int("days", caDays, "for how many `days` it is valid")
	cmd.RunE = does(func(c *run, _ []string) error { return c.ca(*out, *name, *days) })
	return cmd
}

func (c *run) ca(out, name string, days int) error {
	valid, err := life(days)
	if err != nil {
		return err
	}
	authority, err := NewAuthority(name, c.now, valid)
	if err != nil {
		return err
	}
	files, err := pair(out, caName, authority.Cert, authority.Key)
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

func node() *cobra.Command {
	cmd := &cobra.Command{
		Use: "node NAME", Short: "make the certificate of a node, such as app@host.example.org, or of all nodes of a host",
		Args: cobra.ExactArgs(1),
	}
	out := cmd.Flags().String("out", ".", "the `folder` for NAME.pem and NAME.key")
	caFile := cmd.Flags().String("ca", "ca.pem", caFileHelp+", a `file`")
	caKey := cmd.Flags().String("ca-key", "", "its private key, a `file`; if not given, that beside it with the ending .key")
	days := cmd.Flags().Int("days", nodeDays, "for how many `days` it is valid, but not longer than the authority")
	cmd.RunE = does(func(c *run, given []string) error { return c.node(given[0], *out, *caFile, *caKey, *days) })
	return cmd
}

func (c *run) node(name, out, caFile, caKey string, days int) error {
	valid, err := life(days)
	if err != nil {
		return err
	}
	if caKey == "" {
		caKey = strings.TrimSuffix(caFile, filepath.Ext(caFile)) + ".key"
	}
	if err := checkName(name); err != nil {
		return err
	}
	authority, err := loadAuthority(caFile, caKey)
	if err != nil {
		return err
	}
	node, err := authority.Issue(name, c.now, valid)
	if err != nil {
		return err
	}
	// The name as it stands in the certificate has no character that a folder could mind, but for the colons of an IPv6 address.
	base := strings.ReplaceAll(streams.NodeURI(name).Opaque, ":", "%3A")
	files, err := pair(out, base, node.Cert, node.Key)
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
	for _, option := range []struct{ key, file string }{{"certfile", files[1].name}, {"keyfile", files[0].name}, {"cacertfile", caFile}} {
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

func show() *cobra.Command {
	return &cobra.Command{
		Use: "show FILE", Short: "say what is in a file of certificates", Args: cobra.ExactArgs(1),
		RunE: does(func(c *run, given []string) error { return c.show(given[0]) }),
	}
}

func (c *run) show(file string) error {
	certs, err := streams.LoadCertificates(file)
	if err != nil {
		return err
	}
	for i, cert := range certs {
		c.say("%s, certificate %d of %d\n", file, i+1, len(certs))
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

func verify() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify NAME FILE", Short: "check that nodes take the certificate for that of the node", Args: cobra.ExactArgs(2),
	}
	caFile := cmd.Flags().String("ca", "ca.pem", caFileHelp+", or those of several, a `file`: what nodes have as cacertfile")
	keyFile := cmd.Flags().String("key", "", "the certificate's private key, a `file`, to be checked with it")
	names := cmd.Flags().String("names", "any", "the `rule` that nodes have as certificate_names: any, node or host")
	cmd.RunE = does(func(c *run, given []string) error { return c.verify(given[0], given[1], *caFile, *keyFile, *names) })
	return cmd
}

func (c *run) verify(name, certFile, caFile, keyFile, names string) error {
	rule, ok := streams.ParseNameRule(names)
	if !ok {
		return fmt.Errorf("-names %q: it must be any, node or host", names)
	}
	if err := checkName(name); err != nil {
		return err
	}
	if !strings.Contains(name, "@") {
		return fmt.Errorf("%q is not a node's name: it is of the form name@host", name)
	}
	if keyFile != "" {
		if _, err := streams.LoadIdentity(streams.IdentityFiles{CertFile: certFile, KeyFile: keyFile}); err != nil {
			return err
		}
	}
	chain, err := streams.LoadCertificates(certFile)
	if err != nil {
		return err
	}
	node, err := streams.LoadIdentity(streams.IdentityFiles{CAFile: caFile})
	if err != nil {
		return err
	}
	config := streams.Config{Identity: node, NameRule: rule}
	if err := config.Judge(chain, name); err != nil {
		return fmt.Errorf("%s is not good for %s. A node with cacertfile %s says: %w", certFile, name, caFile, err)
	}
	c.say("%s is good for %s, until %s, with nodes that have cacertfile %s.\n", certFile, name, stamp(chain[0].NotAfter), caFile)
	return nil
}
