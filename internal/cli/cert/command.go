package cert

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

	"quic_dist/internal/cli/command"
	"quic_dist/internal/identity"
)

const (
	day      = 24 * time.Hour
	caDays   = 3650
	nodeDays = 397
	mostDays = 36500
	caName   = "ca"
)

// Command is quicdistd cert.
func Command() *cobra.Command {
	return command.Group("cert", "make, show and check certificates of nodes", ca(), node(), show(), verify())
}

// A run is one command that runs.
type run struct {
	out io.Writer
	now time.Time
}

// does makes a function the action of a command.
func does(f func(c *run, given []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, given []string) error {
		return command.Fail(command.Failed, f(&run{out: cmd.OutOrStdout(), now: time.Now()}, given))
	}
}

func (c *run) say(format string, args ...any) { fmt.Fprintf(c.out, format, args...) }

func life(days int) (time.Duration, error) {
	if days < 1 || days > mostDays {
		return 0, fmt.Errorf("--days %d: it must be 1 to %d", days, mostDays)
	}
	return time.Duration(days) * day, nil
}

func ca() *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "make a certificate authority: ca.pem and ca.key", Args: command.Arguments}
	out := cmd.Flags().String("out", ".", "write ca.pem and ca.key into this `FOLDER`")
	name := cmd.Flags().String("name", "", "`NAME` of the authority, for people (without it: one that no other has)")
	days := command.Number(cmd.Flags(), "days", caDays, "days that the certificate is valid")
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
	c.say("%s: its private key. It can sign a certificate for any node: keep it on a machine that runs no node, and do not copy it.\n", files[0].name)
	c.say("Next: quicdistd cert node app@host.example.org --ca %s\n", files[1].name)
	return nil
}

func node() *cobra.Command {
	cmd := &cobra.Command{
		Use: "node NAME", Short: "make a certificate for a node, such as app@host.example.org, or for every node of a host",
		Args: command.Arguments,
	}
	out := cmd.Flags().String("out", ".", "write NAME.pem and NAME.key into this `FOLDER`")
	caFile := cmd.Flags().String("ca", "ca.pem", "`FILE` with the certificate of the authority")
	caKey := cmd.Flags().String("ca-key", "",
		"`FILE` with the private key of the authority (without it: the file of --ca, but ending in .key)")
	days := command.Number(cmd.Flags(), "days", nodeDays,
		"days that the certificate is valid, but not longer than that of the authority")
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
	// The name in the certificate has no character that a folder forbids, except the colons of an IPv6 address.
	base := strings.ReplaceAll(identity.NodeURI(name).Opaque, ":", "%3A")
	files, err := pair(out, base, node.Cert, node.Key)
	if err != nil {
		return err
	}
	if err := create(files); err != nil {
		return err
	}
	c.say("# %s: the certificate (%s), valid until %s.\n", files[1].name, identity.Names(node.Cert),
		stamp(node.Cert.NotAfter))
	c.say("# %s: its private key. Only the node's user may read it.\n", files[0].name)
	return c.lines(name, files[1].name, files[0].name, caFile)
}

// lines prints the lines for vm.args. All flags are on the line of -proto_dist, because the commands of a release copy
// that line for the nodes that they start.
func (c *run) lines(name, certFile, keyFile, caFile string) error {
	var line strings.Builder
	line.WriteString("-proto_dist quic -quic_dist")
	for _, option := range []struct{ key, file string }{{"certfile", certFile}, {"keyfile", keyFile},
		{"cacertfile", caFile}} {
		path, err := filepath.Abs(option.file)
		if err != nil {
			return err
		}
		line.WriteString(fmt.Sprintf(" %s '%s'", option.key, erlangString(path)))
	}
	c.say("# Copy this into vm.args. Keep -proto_dist and -quic_dist on one line: the commands of a release read that line alone.\n")
	_, host, whole := strings.Cut(name, "@")
	if whole {
		flag := "-name"
		if !strings.ContainsAny(host, ".:") {
			flag = "-sname" // Erlang demands it for a host without a dot
		}
		c.say("%s %s\n", flag, word(name))
	}
	c.say("%s\n", line.String())
	switch {
	case !whole:
		c.say("# This certificate serves every node of the host, and remote, rpc, stop and quicdistd (--certfile, --keyfile, --cacertfile).\n")
	case checkName(host) == nil:
		c.say("# remote, rpc, stop and quicdistd have names of their own at this host. They need the host's certificate: quicdistd cert node %s\n", host)
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

// erlangString writes a string in Erlang's syntax. No character in it has a meaning to vm.args, a shell or a release's
// templates, in single quotes or without.
func erlangString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		if r <= ' ' || strings.ContainsRune("\"\\'`$*?[]<>|&;()#~!", r) {
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
		Use: "show FILE", Short: "print what is in a file of certificates", Args: command.Arguments,
		RunE: does(func(c *run, given []string) error { return c.show(given[0]) }),
	}
}

func (c *run) show(file string) error {
	certs, err := identity.LoadCertificates(file)
	if err != nil {
		return err
	}
	for i, cert := range certs {
		c.say("%s, certificate %d of %d\n", file, i+1, len(certs))
		sum := sha256.Sum256(cert.Raw)
		for _, line := range [][2]string{
			{"subject", fmt.Sprintf("%q", cert.Subject)},
			{"issuer", fmt.Sprintf("%q", cert.Issuer)},
			{"names", identity.Names(cert)},
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
	server, client := slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth),
		slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	anything := slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny) ||
		len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0
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
		Use: "verify NAME FILE", Short: "check that nodes accept a certificate as that of the node NAME",
		Args: command.Arguments,
	}
	caFile := cmd.Flags().String("ca", "ca.pem", "`FILE` with the authorities: the cacertfile of the nodes")
	keyFile := cmd.Flags().String("key", "", "also check that the private key in `FILE` belongs to the certificate")
	names := cmd.Flags().String("names", "any", "`RULE` that the nodes have as certificate_names: any, node or host")
	cmd.RunE = does(func(c *run, given []string) error { return c.verify(given[0], given[1], *caFile, *keyFile, *names) })
	return cmd
}

func (c *run) verify(name, certFile, caFile, keyFile, names string) error {
	rule, ok := identity.ParseNameRule(names)
	if !ok {
		return fmt.Errorf("--names %q: it must be any, node or host", names)
	}
	if err := checkName(name); err != nil {
		return err
	}
	if !strings.Contains(name, "@") {
		return fmt.Errorf("%q is not a node's name: it is of the form name@host", name)
	}
	if keyFile != "" {
		if _, err := identity.Load(identity.Files{CertFile: certFile, KeyFile: keyFile}); err != nil {
			return err
		}
	}
	chain, err := identity.LoadCertificates(certFile)
	if err != nil {
		return err
	}
	node, err := identity.Load(identity.Files{CAFile: caFile})
	if err != nil {
		return err
	}
	if err := node.TrustsInBothRoles(rule, chain, name); err != nil {
		return fmt.Errorf("%s is not good for %s. A node with cacertfile %s says: %w", certFile, name, caFile, err)
	}
	c.say("%s is good for %s, until %s, with nodes that have cacertfile %s.\n", certFile, name, stamp(chain[0].NotAfter),
		caFile)
	return nil
}
