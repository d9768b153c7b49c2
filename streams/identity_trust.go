package streams

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
)

// verify judges a peer's certificate by WIRE.md, section 6: chain, path lengths, validity and use, for the role that the peer
// has. The chain begins with the peer's own certificate.
func (id *Identity) verify(chain []*x509.Certificate, use x509.ExtKeyUsage) error {
	if len(chain) == 0 {
		return errors.New("the peer has no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: id.roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{use}})
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	return nil
}

// byCertificate tells whether peers must show a certificate, that it is verified, and that it must name them. There is no way
// for a peer to choose: without its certificate the TLS handshake fails on either side.
func (c *Config) byCertificate() bool { return c.Identity.roots != nil && !c.InsecureNoVerify }

// admits is the one place where the certificate that a peer has proved to own, which has passed verify, and the node name
// that it claims meet.
func (c *Config) admits(chain []*x509.Certificate, node string) error {
	if !c.byCertificate() {
		return nil
	}
	if len(chain) == 0 {
		return errors.New("the peer has no certificate")
	}
	if err := c.NameRule.names(chain[0], node); err != nil {
		return fmt.Errorf("the peer calls itself %s in its hello; %w", printable(node), err)
	}
	return nil
}

// doubts returns why peers with the same rule refuse our own certificate for the node; nil if it names the node, or if
// certificates do not matter.
func (c *Config) doubts(node string) error {
	if !c.byCertificate() || len(c.Identity.chain) == 0 {
		return nil
	}
	if err := c.NameRule.names(c.Identity.chain[0], node); err != nil {
		return fmt.Errorf("%s: peers refuse this node, %s: %w", c.Identity.files.CertFile, printable(node), err)
	}
	return nil
}

// warnOfOwnName tells the operator of doubts.
func (c *Config) warnOfOwnName(node string) {
	if err := c.doubts(node); err != nil {
		c.Log.Warn(err.Error())
	}
}

// Judge says whether a node with this configuration takes a peer that shows the chain and calls itself node, whichever of
// the two dials. The error is the line for the log.
func (c *Config) Judge(chain []*x509.Certificate, node string) error {
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := c.trusts(chain, node, use); err != nil {
			return err
		}
	}
	return nil
}

// trusts judges again, by this configuration, a peer that was judged by one before.
func (c *Config) trusts(chain []*x509.Certificate, node string, use x509.ExtKeyUsage) error {
	if !c.byCertificate() {
		return nil
	}
	if err := c.Identity.verify(chain, use); err != nil {
		if why, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return distrust(why, use)
		}
		return err
	}
	return c.admits(chain, node)
}

// serverTLS is the configuration of the side that was dialled.
func (c *Config) serverTLS() *tls.Config {
	conf := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{alpn},
		Certificates: []tls.Certificate{c.Identity.cert},
		// A resumed session would skip the certificates, and with one connection for each pair of nodes it saves
		// nothing.
		SessionTicketsDisabled: true,
	}
	if c.byCertificate() {
		// crypto/tls judges a dialler exactly as verify would, and tells it why it was refused in a finer alert.
		conf.ClientAuth = tls.RequireAndVerifyClientCert
		conf.ClientCAs = c.Identity.roots
	}
	return conf
}

// clientTLS is the configuration of the dialler.
func (c *Config) clientTLS() *tls.Config {
	id, verifies := c.Identity, c.byCertificate()
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpn},
		// Shown even if the peer's list of authorities does not have its issuer: the peer's refusal then says so,
		// which "no certificate" would not.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id.cert, nil },
		// Skips the check of the host name, which a node's certificate need not hold, and with it all others: these
		// are VerifyConnection's, and the name admits'.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if !verifies {
				return nil
			}
			return id.verify(state.PeerCertificates, x509.ExtKeyUsageServerAuth)
		},
	}
}

// distrust says in words why a peer's certificate has not passed verify, for the role that the peer has.
func distrust(e *tls.CertificateVerificationError, use x509.ExtKeyUsage) error {
	if len(e.UnverifiedCertificates) == 0 {
		return e.Err
	}
	leaf := e.UnverifiedCertificates[0]
	say := func(format string, args ...any) error {
		return fmt.Errorf("this node refuses the peer's certificate (%s): "+format, append([]any{subject(leaf)}, args...)...)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](e.Err); ok {
		who := "it"
		if invalid.Cert != nil && !bytes.Equal(invalid.Cert.Raw, leaf.Raw) {
			who = fmt.Sprintf("that of its issuer (%s)", subject(invalid.Cert))
		}
		switch invalid.Reason {
		case x509.Expired:
			if cert := invalid.Cert; time.Now().Before(cert.NotBefore) {
				return say("%s is not valid before %s: check both clocks", who, cert.NotBefore.UTC().Format(time.RFC3339))
			}
			return say("%s expired at %s: renew it", who, invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
		case x509.IncompatibleUsage:
			return say("it is not for %s authentication (extended key usage)", roleName(use))
		case x509.TooManyIntermediates:
			return say("%s allows no further authority below it (path length)", who)
		}
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](e.Err); ok {
		if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
			return say("it is self-signed, and cacertfile does not hold it")
		}
		return say("it was issued by %s, and no chain leads from it to what cacertfile holds", printable(leaf.Issuer.String()))
	}
	return say("it is not trusted: %w", e.Err)
}

func roleName(use x509.ExtKeyUsage) string {
	if use == x509.ExtKeyUsageClientAuth {
		return "client"
	}
	return "server"
}

// alertFailure gives a failed TLS handshake with a peer of this role its code and words. RFC 8446, section 6.2 has the alerts.
func alertFailure(e *quic.TransportError, use x509.ExtKeyUsage) (Code, error) {
	const (
		firstAlert            = 0x100 // RFC 9001, section 4.8
		noApplicationProtocol = 120
		badCertificate        = 42
		lastAboutCertificates = 49
		certificateRequired   = 116
	)
	alert := uint8(e.ErrorCode - firstAlert)
	words := tls.AlertError(alert).Error()
	switch {
	case alert == noApplicationProtocol && e.Remote:
		return CodeWireVersion, fmt.Errorf("the peer speaks QUIC but not %s, which is what this node speaks: "+
			"it is another version of quic_dist or another program", alpn)
	case alert == noApplicationProtocol:
		return CodeWireVersion, fmt.Errorf("the peer speaks QUIC and does not name %s, which is what this node speaks: "+
			"it is another program (%w)", alpn, e)
	case e.Remote && (alert >= badCertificate && alert <= lastAboutCertificates || alert == certificateRequired):
		return CodeUntrusted, fmt.Errorf("the peer refuses this node's certificate (%s): its log says why; check that an authority "+
			"in its cacertfile issued this node's certfile, for client and server authentication, and that it is not expired", words)
	case e.Remote:
		return CodePeerRefused, fmt.Errorf("the peer ended the TLS handshake (%s)", words)
	}
	if why, ok := errors.AsType[*tls.CertificateVerificationError](e); ok {
		return CodeUntrusted, distrust(why, use)
	}
	if alert == certificateRequired {
		return CodeUntrusted, errors.New("this node refuses the peer: it shows no certificate")
	}
	return CodeUntrusted, fmt.Errorf("this node ended the TLS handshake: %w", e)
}
