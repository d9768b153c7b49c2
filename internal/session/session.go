package session

import (
	"context"
	"errors"
	"io"
	"runtime"
	"time"

	"quic_dist/internal/cookie"
	"quic_dist/internal/dataplane"
	"quic_dist/internal/hosts"
	"quic_dist/internal/status"
	"quic_dist/internal/tasks"
	"quic_dist/portproto"
	"quic_dist/streams"
)

const (
	helloTimeout = 10 * time.Second       // for the VM's hello (PROTOCOL.md, section 3)
	stopGrace    = 100 * time.Millisecond // for goroutines to end after channels have ended
)

// A Config is what a session needs to know of its process.
type Config struct {
	Build       string                // the version of the library that the executable belongs to
	RuntimeDirs []string              // where folders of this user may be made, the preferred first
	StateDir    string                // where data that outlives the node is kept; empty: nowhere
	Keys        *cookie.Keyring       // nil: one of its own
	Drain       dataplane.DrainLimits // of all channels, when the VM is gone; zero: dataplane.OnStop
}

// A Session is the conversation with one VM.
//
// One goroutine, the reader, reads the VM's frames and never blocks on the network: each request that needs the
// network and each channel has a goroutine of its own. All write through one portproto.Writer.
type Session struct {
	config     Config
	vm         *frameWriter
	log        *logger
	admissions *admissions
	lookups    *lookups
	hosts      *hosts.Resolver // for what the VM asks for
	theirHosts *hosts.Resolver // for what strangers ask for
	started    time.Time

	requests requests
	channels channels
	webLinks webLinks

	// What these hold is delivered after the VM has gone.
	links  tasks.Group // channels
	copies tasks.Group // links over HTTP
	work   tasks.Group // everything else that Run waits for

	// Set by Run before the reader starts.
	base    context.Context // of everything that uses the network; it outlasts the conversation by the time to drain
	serving context.Context // ends with the conversation, so before channels are drained

	// Set once, by the reader, before any goroutine that reads them starts. Nil until the VM has configured the
	// sidecar.
	endpoint *streams.Endpoint
	handoff  *dataplane.Handoff // nil: channels use stdio
	web      *webRequests
	names    *nameRequests

	// The reader's own.
	helloDone bool
	status    *status.Server // nil: there is no status page
}

// New returns a session that writes to w.
func New(w *portproto.Writer, config Config) *Session {
	if config.Keys == nil {
		config.Keys = cookie.NewKeyring()
	}
	if config.Drain == (dataplane.DrainLimits{}) {
		config.Drain = dataplane.OnStop
	}
	log := newLogger(w)
	vm := &frameWriter{w, log}
	lookups := &lookups{vm: vm}
	return &Session{
		config:     config,
		vm:         vm,
		log:        log,
		admissions: newAdmissions(vm),
		lookups:    lookups,
		hosts:      hosts.New(lookups.ask, maxLookups-1),
		theirHosts: hosts.New(lookups.ask, 1),
		started:    time.Now(),
	}
}

// DebugLog returns a writer for lines of the standard library's logger: each becomes a debug line of the VM's log.
func (s *Session) DebugLog() io.Writer { return debugWriter{s.log} }

// errStop ends a conversation without a fault.
var errStop = errors.New("the VM asked to stop, or is gone")

// Run serves the VM behind stdin until the VM asks to stop, dies or breaks the protocol, or ctx ends, and then
// delivers what the VM has sent. The error is a [Fault] of the VM, or the endpoint's. Nothing interrupts the
// read of a pipe, so if ctx ends, one goroutine stays behind in it.
func (s *Session) Run(ctx context.Context, stdin io.Reader) error {
	base, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	serving, leave := context.WithCancel(base)
	defer leave()
	s.base, s.serving = base, serving
	conversation, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)

	_ = s.vm.w.Write(&portproto.SidecarHello{
		Protocol: portproto.Protocol, Build: s.config.Build, OS: runtime.GOOS, Arch: runtime.GOARCH,
	}) // if the VM is gone, the reader sees the end of file
	late := time.AfterFunc(helloTimeout, func() { hangUp(versionFault("no hello from the VM within %s", helloTimeout)) })
	defer late.Stop()
	go func() { hangUp(s.read(stdin, late, hangUp)) }()
	<-conversation.Done()

	s.stop(leave, end)
	if cause := context.Cause(conversation); cause != errStop && ctx.Err() == nil {
		return cause
	}
	return nil
}

// stop ends every request and every channel, and then, by calling end, everything else. It waits for all of it,
// for a bounded time: the VM may be alive and not read what is written to it. Goroutines that are left end with
// the process.
func (s *Session) stop(leave, end context.CancelFunc) {
	s.links.Stop()
	s.copies.Stop()
	s.work.Stop()
	leave() // there will be no more channels, and a successor may have the node's name
	s.requests.cancelAll()
	late := time.Now().Add(s.config.Drain.Limit + stopGrace)
	s.channels.finish(s.config.Drain, time.Until(late))
	s.links.Wait(stopGrace)
	s.copies.Wait(max(stopGrace, time.Until(late))) // they end by themselves, once they have delivered
	end()
	s.work.Wait(stopGrace)
}

// read handles the VM's frames until there are no more, and returns why.
func (s *Session) read(stdin io.Reader, late *time.Timer, hangUp context.CancelCauseFunc) error {
	r := portproto.NewReader(stdin)
	for {
		body, err := r.Next()
		_, broken := errors.AsType[*portproto.ProtocolError](err)
		switch {
		case err == nil:
			err = s.handle(body, hangUp)
		case broken:
			err = protocolFault("%w", err)
		default:
			err = errStop // end of file, anywhere: a VM that is killed may leave half a frame
		}
		if err != nil {
			if err != errStop {
				s.log.Error("quicdistd gives up", "err", err)
			}
			return err
		}
		if s.helloDone {
			late.Stop()
		}
	}
}

// hello takes the VM's first frame.
func (s *Session) hello(f portproto.Frame) error {
	hello, ok := f.(*portproto.VMHello)
	if !ok {
		return versionFault("the VM began with %s instead of its hello", portproto.Text(f))
	}
	if hello.Protocol != portproto.Protocol || hello.Build != s.config.Build {
		return versionFault(
			"the Erlang library is version %s (protocol %d), this executable is version %s (protocol %d): install both from one release",
			hello.Build, hello.Protocol, s.config.Build, portproto.Protocol)
	}
	s.helloDone = true
	return nil
}

// A frameWriter writes control frames to the VM.
type frameWriter struct {
	w   *portproto.Writer
	log *logger
}

// tell writes a frame, and logs it. If the VM is gone, the reader sees the end of file.
func (v *frameWriter) tell(f portproto.Frame) {
	v.log.frame("to the VM", f)
	_ = v.w.Write(f)
}

// given returns nil for an empty text, which is left out of a frame.
func given(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// deref returns the value of a field that may be left out: the zero value if it is.
func deref[T any](field *T) T {
	if field == nil {
		var zero T
		return zero
	}
	return *field
}
