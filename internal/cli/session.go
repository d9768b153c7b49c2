package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"quic_dist/internal/cli/command"
	"quic_dist/internal/cookie"
	"quic_dist/internal/erlang/node"
	"quic_dist/internal/fault"
	"quic_dist/internal/identity"
	"quic_dist/streams"
)

const (
	keepAlive   = 5 * time.Second
	idleTimeout = 30 * time.Second // of the network; a call may take longer
	maxTimeout  = 24 * time.Hour
)

// options are the flags of all commands that connect to a node.
type options struct {
	build   string
	getenv  func(string) string
	stdin   io.Reader
	timeout *time.Duration
	name    string
	address string
	cookie  string // its file

	discovery    discoveryOptions
	files        identity.Files
	passwordFile string
}

func connectOptions(cmd *cobra.Command, cfg Config) *options {
	o := &options{build: cfg.Build, getenv: cfg.Getenv, stdin: cfg.Stdin}
	f := cmd.Flags()
	o.timeout = command.Duration(f, "timeout", 30*time.Second, "time limit for the whole command, such as 500ms or 2m")
	f.StringVar(&o.name, "name", "", "connect as this `NODE`, name@host (without it the other node chooses the name)")
	f.StringVar(&o.address, "address", "",
		"connect to `HOST:PORT` (without it the node's name or --discovery gives the address)")
	o.discovery.define(f)
	f.StringVar(&o.cookie, "cookie-file", "",
		"read the cookie from `FILE`, or from standard input if it is - (without it: the file that "+cookieVariable+" names, or ~/.erlang.cookie)")
	f.StringVar(&o.files.CAFile, "cacertfile", "",
		"PEM `FILE` with the authorities that sign certificates, as on the node. The cookie is needed too")
	f.StringVar(&o.files.CertFile, "certfile", "",
		"PEM `FILE` with the certificate to show: that of this host, or of --name")
	f.StringVar(&o.files.KeyFile, "keyfile", "",
		"PEM `FILE` with the key of the certificate (without it the key is in --certfile)")
	f.StringVar(&o.passwordFile, "password-file", "", "read the password of the key from `FILE`")
	return o
}

// within limits a command's time.
func (o *options) within(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if *o.timeout <= 0 || *o.timeout > maxTimeout {
		return nil, nil, command.Fail(command.Usage, fmt.Errorf("--timeout %v: it must be more than 0 and at most %v",
			*o.timeout, maxTimeout))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, *o.timeout, lateError(*o.timeout))
	return ctx, cancel, nil
}

// A lateError says that a command's time is over.
type lateError time.Duration

func (e lateError) Error() string {
	return fmt.Sprintf("no answer within %v (--timeout)", time.Duration(e))
}

// Is makes it equal to context.DeadlineExceeded.
func (e lateError) Is(target error) bool { return target == context.DeadlineExceeded }

// A request says to which node to connect, and with what.
type request struct {
	name, host string
	cookie     []byte
	cookieFile string
	identity   *identity.Identity
	local      string // our name
	keys       *cookie.Keyring
	find       finder
}

func (w *request) node() string { return w.name + "@" + w.host }

// prepare reads the files that a connection needs. Its errors are errors of the command line.
func (o *options) prepare(ctx context.Context, node string, work *sync.WaitGroup) (*request, error) {
	w := &request{keys: cookie.NewKeyring()}
	var err error
	if w.name, w.host, err = parseNode(node); err != nil {
		return nil, err
	}
	if w.find, err = o.discovery.finder(o.address, o.getenv); err != nil {
		return nil, err
	}
	if w.cookie, w.cookieFile, err = readCookie(ctx, cookieFiles(o.cookie, o.getenv), o.stdin); err != nil {
		return nil, command.Fail(command.Usage, err)
	}
	files := o.files
	if o.passwordFile != "" {
		password, err := os.ReadFile(o.passwordFile)
		if err != nil {
			return nil, command.Fail(command.Usage, err)
		}
		files.Password = []byte(strings.TrimRight(string(password), "\r\n"))
	}
	if w.identity, err = identity.Load(files); err != nil {
		return nil, command.Fail(command.Usage, err)
	}
	if w.local, err = o.localName(w); err != nil {
		return nil, command.Fail(command.Usage, err)
	}
	if o.files.CAFile == "" {
		largePages(cookie.DerivationMemory) // before the first derivation
		// Derives the key while the rest connects, because that takes longest. Ends with ctx, or after a derivation that has
		// begun; the session waits.
		work.Go(func() { _ = w.keys.Learn(ctx, w.cookie) })
	}
	return w, nil
}

// localName is this node's name: the given one, or undefined@HOST with a host that its certificate names. In the second
// case the other node assigns a name.
func (o *options) localName(w *request) (string, error) {
	if o.name != "" {
		if name, host, ok := strings.Cut(o.name, "@"); !ok || !isName(name) || !isName(host) {
			return "", fmt.Errorf("--name %q: it must be of the form name@host", o.name)
		}
		return o.name, nil
	}
	hostname, err := os.Hostname()
	if err != nil {
		return "", err
	}
	hosts := []string{hostname}
	if short, _, long := strings.Cut(hostname, "."); long {
		hosts = append(hosts, short)
	}
	if o.files.CAFile == "" || o.files.CertFile == "" {
		return "undefined@" + hosts[0], nil
	}
	cert, _ := w.identity.Own()
	hosts = append(hosts, cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	chain, err := identity.LoadCertificates(o.files.CertFile)
	if err != nil {
		return "", err
	}
	for _, host := range hosts {
		if err = w.identity.TrustsInBothRoles(identity.NameAny, chain, "undefined@"+host); err == nil {
			return "undefined@" + host, nil
		}
	}
	return "", fmt.Errorf("%s names %s, and no host for which this node could be given a name (%w): say --name, but not that of a node "+
		"that runs, or take the certificate of a host (quicdistd cert node HOST)", o.files.CertFile, identity.Names(cert), err)
}

// A session is a connection to a node.
type session struct {
	request  *request
	found    finding
	channel  *streams.Channel
	node     *node.Node // nil until the handshake
	endpoint *streams.Endpoint

	end  context.CancelFunc
	work sync.WaitGroup
}

// open connects to a node and does the handshake. Output receives what called functions print.
func (o *options) open(ctx context.Context, node string, print io.Writer) (*session, error) {
	s := &session{end: func() {}}
	err := s.open(ctx, o, node, print)
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) open(ctx context.Context, o *options, node string, print io.Writer) (err error) {
	if s.request, err = o.prepare(ctx, node, &s.work); err != nil {
		return err
	}
	if s.found, err = s.request.find.find(ctx, s.request.name, s.request.host); err != nil {
		return err
	}
	if err := s.dial(ctx, o, false); err != nil {
		return err
	}
	return s.shake(ctx, print)
}

// dial opens the channel: everything below the distribution handshake.
func (s *session) dial(ctx context.Context, o *options, observe bool) (err error) {
	s.endpoint, err = streams.NewEndpoint(streams.Config{
		Build: o.build, KeepAlive: keepAlive, IdleTimeout: idleTimeout, HelloTimeout: keepAlive,
		Identity: s.request.identity, Keys: s.request.keys, Connections: 1, ObserveMTU: observe,
	})
	if err != nil {
		return err
	}
	life, end := context.WithCancel(context.Background())
	s.end = end
	// Owns the socket; ends with the session, which waits.
	s.work.Go(func() { _ = s.endpoint.Run(life) })
	s.channel, err = s.endpoint.Dial(ctx, streams.DialRequest{
		Node: s.request.node(), Local: s.request.local, Cookie: s.request.cookie, Targets: s.found.targets,
	})
	return s.named(err)
}

// named leaves out the address in an error about a node whose name is its address.
func (s *session) named(err error) error {
	e, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return err
	}
	words, ok := strings.CutPrefix(e.Err.Error(), net.JoinHostPort(s.request.host, s.request.name)+": ")
	if !ok {
		return err
	}
	return &fault.Error{Code: e.Code, Op: e.Op, Err: &rephrased{words, e.Err}}
}

// A rephrased error has another text.
type rephrased struct {
	words string
	err   error
}

func (e *rephrased) Error() string { return e.words }
func (e *rephrased) Unwrap() error { return e.err }

// shake does the distribution handshake.
func (s *session) shake(ctx context.Context, print io.Writer) error {
	s.node = node.New(s.channel, node.Config{Name: s.request.local, Peer: s.request.node(), Cookie: s.request.cookie,
		Output: print})
	// Receives; ends with the channel; the session waits.
	s.work.Go(func() { _ = s.node.Run() })
	return s.node.Connect(ctx)
}

// close ends the session. All requests have been answered, so it waits for none.
func (s *session) close() {
	if s.channel != nil {
		_ = s.channel.Close(streams.CloseNone, "")
	}
	s.end()
	s.work.Wait()
}
