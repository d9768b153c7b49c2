package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"quic_dist/command"
	"quic_dist/dist"
	"quic_dist/streams"
)

const (
	keepAlive   = 5 * time.Second
	idleTimeout = 30 * time.Second // of the network; a call may take longer
	maxTimeout  = 24 * time.Hour
)

// options are those of all commands that connect to a node.
type options struct {
	build   string
	getenv  func(string) string
	timeout time.Duration
	name    string
	address string
	cookie  string // its file

	discovery    discoveryOptions
	files        streams.IdentityFiles
	passwordFile string
}

func connectOptions(cmd *cobra.Command, cfg Config) *options {
	o := &options{build: cfg.Build, getenv: cfg.Getenv}
	f := cmd.Flags()
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "how long all of it may `take`, as in 500ms or 2m")
	f.StringVar(&o.name, "name", "", "the `node` that this one is, name@host; else the other node gives it a name")
	f.StringVar(&o.address, "address", "", "where the node listens, `HOST:PORT`; else its name says so, or --discovery")
	o.discovery.define(f)
	f.StringVar(&o.cookie, "cookie-file", "", "the `file` with the cookie (else "+cookieVariable+", else ~/.erlang.cookie)")
	f.StringVar(&o.files.CAFile, "cacertfile", "", "PEM `file`: who signs certificates; the node has one too. The cookie is needed all the same")
	f.StringVar(&o.files.CertFile, "certfile", "", "PEM `file`: the certificate of this node")
	f.StringVar(&o.files.KeyFile, "keyfile", "", "PEM `file`: its key, if that is not in certfile")
	f.StringVar(&o.passwordFile, "password-file", "", "the `file` with the password of the key")
	return o
}

// within bounds a command's time.
func (o *options) within(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if o.timeout <= 0 || o.timeout > maxTimeout {
		return nil, nil, command.Fail(command.Usage, fmt.Errorf("--timeout %v: it must be more than 0 and at most %v", o.timeout, maxTimeout))
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	return ctx, cancel, nil
}

// A wish is a node that is to be connected to, and with what.
type wish struct {
	name, host string
	cookie     []byte
	cookieFile string
	identity   *streams.Identity
	local      string // our name
	keys       *streams.Keyring
	find       finder
}

func (w *wish) node() string { return w.name + "@" + w.host }

// prepare reads what is needed to connect. Its errors are of the command line.
func (o *options) prepare(ctx context.Context, node string, work *sync.WaitGroup) (*wish, error) {
	w := &wish{keys: streams.NewKeyring()}
	var err error
	if w.name, w.host, err = parseNode(node); err != nil {
		return nil, err
	}
	if w.find, err = o.discovery.finder(o.address, o.getenv); err != nil {
		return nil, err
	}
	if w.cookie, w.cookieFile, err = readCookie(cookieFiles(o.cookie, o.getenv)); err != nil {
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
	if w.identity, err = streams.LoadIdentity(files); err != nil {
		return nil, command.Fail(command.Usage, err)
	}
	if w.local, err = o.localName(w); err != nil {
		return nil, command.Fail(command.Usage, err)
	}
	if o.files.CAFile == "" {
		// This takes longer than all else: it goes on beside it. Ends with ctx, but for a derivation that has begun; the session waits.
		work.Go(func() {
			largePages(streams.DerivationMemory)
			_ = w.keys.Learn(ctx, w.cookie)
		})
	}
	return w, nil
}

// localName is what this node calls itself: what was said, or undefined at a host that its certificate names, in which case the
// other node gives it a name of those that it keeps for that.
func (o *options) localName(w *wish) (string, error) {
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
	chain, err := streams.LoadCertificates(o.files.CertFile)
	if err != nil {
		return "", err
	}
	judge := streams.Config{Identity: w.identity}
	for _, host := range hosts {
		if err = judge.Judge(chain, "undefined@"+host); err == nil {
			return "undefined@" + host, nil
		}
	}
	return "", fmt.Errorf("%s names %s, and no host for which this node could be given a name (%w): say --name, but not that of a node "+
		"that runs, or take the certificate of a host (quicdistd cert node HOST)", o.files.CertFile, streams.Names(cert), err)
}

// A session is a connection to a node.
type session struct {
	wish     *wish
	found    finding
	channel  *streams.Channel
	node     *dist.Node // nil until the handshake
	endpoint *streams.Endpoint

	end  context.CancelFunc
	work sync.WaitGroup
}

// open connects to a node and does the handshake. Output gets what called functions print.
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
	if s.wish, err = o.prepare(ctx, node, &s.work); err != nil {
		return err
	}
	if s.found, err = s.wish.find.find(ctx, s.wish.name, s.wish.host); err != nil {
		return err
	}
	if err := s.dial(ctx, o, false); err != nil {
		return err
	}
	return s.shake(ctx, print)
}

// dial makes the channel, all of what is below the distribution handshake.
func (s *session) dial(ctx context.Context, o *options, observe bool) (err error) {
	s.endpoint, err = streams.NewEndpoint(streams.Config{
		Build: o.build, KeepAlive: keepAlive, IdleTimeout: idleTimeout, HelloTimeout: keepAlive,
		Identity: s.wish.identity, Keys: s.wish.keys, Connections: 1, ObserveMTU: observe,
	})
	if err != nil {
		return err
	}
	life, end := context.WithCancel(context.Background())
	s.end = end
	// Owns the socket; ends with the session, which waits.
	s.work.Go(func() { _ = s.endpoint.Run(life) })
	s.channel, err = s.endpoint.Dial(ctx, streams.Dial{
		Node: s.wish.node(), Local: s.wish.local, Cookie: s.wish.cookie, Targets: s.found.targets,
	})
	return err
}

// shake does the distribution handshake.
func (s *session) shake(ctx context.Context, print io.Writer) error {
	s.node = dist.New(s.channel, dist.Config{Name: s.wish.local, Peer: s.wish.node(), Cookie: s.wish.cookie, Output: print})
	// Owns what comes in; ends with the channel; the session waits.
	s.work.Go(func() { _ = s.node.Run() })
	return s.node.Connect(ctx)
}

// close ends all of it. What was said has been answered, so there is nothing to wait for.
func (s *session) close() {
	if s.channel != nil {
		_ = s.channel.Close(streams.CloseNone, "")
	}
	s.end()
	s.work.Wait()
}
