package session

import (
	"context"
	"fmt"
	"time"

	"quic_dist/internal/dataplane"
	"quic_dist/internal/identity"
	"quic_dist/internal/lanes"
	"quic_dist/internal/unixsock"
	"quic_dist/portproto"
	"quic_dist/streams"
)

// configure makes and starts the endpoint, or changes the configuration of the one there is.
func (s *Session) configure(m *portproto.Configure, hangUp context.CancelCauseFunc) error {
	s.log.setLevel(m.LogLevel)
	own, err := identity.Load(identity.Files{
		CertFile: deref(m.CertFile), KeyFile: deref(m.KeyFile), Password: m.Password, CAFile: deref(m.CACertFile),
	})
	if err != nil {
		return err
	}
	for _, warning := range own.Warnings {
		s.log.Warn(warning)
	}
	names, err := namesConfigOf(m, s.hosts, s.log.Logger)
	if err != nil {
		return err
	}
	config := s.endpointConfig(m, own)
	if s.endpoint != nil {
		err = s.endpoint.Reconfigure(config)
	} else {
		err = s.start(config, m.DataPlane, hangUp)
	}
	if err != nil {
		return err
	}
	if err := trace(s.endpoint, &portproto.Trace{QlogDir: m.QlogDir, InsecureKeyLog: m.InsecureKeyLog}); err != nil {
		return err
	}
	s.startStatus(m.StatusPort)
	s.names.configure(names)
	s.tellCertificates(own)
	return nil
}

func (s *Session) endpointConfig(m *portproto.Configure, own *identity.Identity) streams.Config {
	config := streams.Config{
		Build: s.config.Build, ResetKey: m.ResetKey, Identity: own, Admitter: s.admissions, Keys: s.config.Keys,
		Hosts: s.hosts, Log: s.log.Logger, KeepAlive: m.KeepAlive, IdleTimeout: m.IdleTimeout, HelloTimeout: m.HelloTimeout,
		Lanes: m.Lanes, Connections: m.Connections, Resume: deref(m.Resume),
		CloseUntrusted: deref(m.CloseUntrusted), InsecureNoVerify: deref(m.InsecureNoVerify),
		Reloaded: s.tellCertificates, ResetSecret: s.resetSecret(),
	}
	if on := m.LocalLinks; on == portproto.LocalLinksAuto || on == portproto.LocalLinksSameUser {
		config.Local = streams.Local{Socket: deref(m.LocalSocket), Certified: on == portproto.LocalLinksSameUser}
		var err error
		if config.Local.Place, err = unixsock.Place(); err != nil {
			s.log.Info("no local links", "err", err)
		}
	}
	config.Streams, _ = lanes.ParseMode(string(m.Streams)) // the codec knows the same modes
	config.Path, _ = streams.ParsePathMode(string(m.Path)) // likewise
	config.NameRule, _ = identity.ParseNameRule(string(m.CertificateNames))
	return config
}

// start makes the endpoint and everything that serves the VM with it, and runs them until base ends.
func (s *Session) start(config streams.Config, plane portproto.DataPlane, hangUp context.CancelCauseFunc) error {
	handoff, err := s.newHandoff(plane)
	if err != nil {
		return err
	}
	endpoint, err := streams.NewEndpoint(config)
	if err != nil {
		return err
	}
	s.endpoint, s.handoff = endpoint, handoff
	if handoff != nil {
		s.work.Go(func() { handoff.Run(s.serving) })
	}
	s.startWeb()
	s.startNames()
	s.work.Go(func() {
		if err := endpoint.Run(s.base); err != nil && s.base.Err() == nil {
			hangUp(fmt.Errorf("the QUIC endpoint ended: %w", err))
		}
	})
	s.work.Go(s.acceptChannels)
	return nil
}

// newHandoff makes the socket to which the VM connects for each channel. It returns nil if channels use stdio.
func (s *Session) newHandoff(plane portproto.DataPlane) (*dataplane.Handoff, error) {
	if plane != portproto.DataPlaneAuto && plane != portproto.DataPlaneSocket {
		return nil, nil
	}
	handoff, err := dataplane.NewHandoff(s.log.Logger)
	switch {
	case err == nil:
		return handoff, nil
	case plane == portproto.DataPlaneSocket:
		return nil, &requestError{portproto.CodeInternal, "data plane socket", err}
	default:
		s.log.Warn("no sockets for the data plane, standard input and output are used instead", "err", err)
		return nil, nil
	}
}

// tellCertificates tells the VM which certificates are in use.
func (s *Session) tellCertificates(own *identity.Identity) {
	var f portproto.Certificates
	for _, c := range own.Certificates() {
		option := portproto.OptionCertFile
		if c.Authority {
			option = portproto.OptionCACertFile
		}
		f.Certificates = append(f.Certificates, portproto.Certificate{
			Option: option, Subject: c.Subject, Expires: c.NotAfter.UTC().Format(time.RFC3339),
		})
	}
	s.vm.tell(&f)
}

// trace sets which files are written about a peer.
func trace(endpoint *streams.Endpoint, m *portproto.Trace) error {
	return endpoint.Trace(m.Node, streams.TraceSetting{QlogDir: deref(m.QlogDir), InsecureKeyLog: deref(m.InsecureKeyLog)})
}

func (s *Session) listen(m *portproto.Listen) (uint32, portproto.Frame, error) {
	if s.endpoint == nil {
		return m.ID, nil, errNotConfigured
	}
	at, err := s.endpoint.Listen(m.Node, m.Address, m.PortMin, m.PortMax)
	if err == nil && len(m.Cookie) > 0 {
		// The key of the cookie is derived now, so that the first peer does not wait for it.
		s.work.Go(func() { _ = s.config.Keys.Learn(s.base, m.Cookie) })
	}
	return m.ID, &portproto.Listening{ID: m.ID, Address: at.Addr().String(), Port: at.Port()}, err
}

func (s *Session) closeListener(m *portproto.CloseListener) (uint32, portproto.Frame, error) {
	if s.endpoint == nil {
		return m.ID, nil, errNotConfigured
	}
	return m.ID, &portproto.OK{ID: m.ID}, s.endpoint.CloseListener()
}
