package streams

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/quic-go/quic-go"

	"quic_dist/internal/fault"
	"quic_dist/internal/identity"
)

// byCertificate tells whether peers must show a certificate, that it is verified, and that it must name them. There
// is no way for a peer to choose: without its certificate the TLS handshake fails on either side.
func (c *Config) byCertificate() bool { return c.Identity.Roots() != nil && !c.InsecureNoVerify }

// admits judges the node's name that a peer claims by the certificate that TLS has verified.
func (c *Config) admits(chain []*x509.Certificate, node string) error {
	if !c.byCertificate() {
		return nil
	}
	return c.NameRule.Admits(chain, node)
}

// ownNameProblem returns why peers with the same rule refuse our own certificate for the node; nil if it names the
// node, or if certificates do not matter.
func (c *Config) ownNameProblem(node string) error {
	if !c.byCertificate() || !c.Identity.HasCertificate() {
		return nil
	}
	if err := c.NameRule.Check(c.Identity.TLS().Leaf, node); err != nil {
		return fmt.Errorf("%s: peers refuse this node, %s: %w", c.Identity.Files().CertFile, fault.Printable(node), err)
	}
	return nil
}

// warnOfOwnName logs an ownNameProblem.
func (c *Config) warnOfOwnName(node string) {
	if err := c.ownNameProblem(node); err != nil {
		c.Log.Warn(err.Error())
	}
}

// trusts judges a peer whose certificate TLS has not verified by this configuration.
func (c *Config) trusts(chain []*x509.Certificate, node string, use x509.ExtKeyUsage) error {
	if !c.byCertificate() {
		return nil
	}
	return c.Identity.Trusts(c.NameRule, chain, node, use)
}

// trustsAll is trusts for each connection of a channel.
func (c *Config) trustsAll(chains [][]*x509.Certificate, node string, use x509.ExtKeyUsage) error {
	for _, chain := range chains {
		if err := c.trusts(chain, node, use); err != nil {
			return err
		}
	}
	return nil
}

// serverTLS is the configuration of the side that was dialled.
func (c *Config) serverTLS() *tls.Config {
	conf := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{alpn},
		Certificates: []tls.Certificate{*c.Identity.TLS()},
		// A resumed session would skip the certificates, and with one connection for each pair of nodes it saves
		// nothing.
		SessionTicketsDisabled: true,
	}
	if c.byCertificate() {
		// crypto/tls judges a dialler exactly as Verify would, and tells it why it was refused in a finer alert.
		conf.ClientAuth = tls.RequireAndVerifyClientCert
		conf.ClientCAs = c.Identity.Roots()
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
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.TLS(), nil },
		// Skips the check of the host name, which a node's certificate need not hold, and with it all others: these
		// are VerifyConnection's, and the name admits'.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if !verifies {
				return nil
			}
			return id.Verify(state.PeerCertificates, x509.ExtKeyUsageServerAuth)
		},
	}
}

// alertFailure gives a failed TLS handshake with a peer of this role its code and words. RFC 8446, section 6.2 has
// the alerts.
func (c *Config) alertFailure(e *quic.TransportError, use x509.ExtKeyUsage) (fault.Code, error) {
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
		return fault.WireVersion, fmt.Errorf("the peer speaks QUIC but not %s, which is what this node speaks: "+
			"it is another version of quic_dist or another program", alpn)
	case alert == noApplicationProtocol:
		return fault.WireVersion, fmt.Errorf("the peer speaks QUIC and does not name %s, which is what this node speaks: "+
			"it is another program (%w)", alpn, e)
	case e.Remote && (alert >= badCertificate && alert <= lastAboutCertificates || alert == certificateRequired):
		if !c.Identity.HasCertificate() {
			return fault.Untrusted, fmt.Errorf("this node has no certfile, and the peer demands a certificate (%s): set certfile, keyfile "+
				"and cacertfile here, or cacertfile on neither node", words)
		}
		return fault.Untrusted, fmt.Errorf("the peer refuses this node's certificate (%s): its log says why; check that an authority "+
			"in its cacertfile issued this node's certfile, for client and server authentication, and that it is not expired", words)
	case e.Remote:
		return fault.PeerRefused, fmt.Errorf("the peer ended the TLS handshake (%s)", words)
	}
	if why, ok := errors.AsType[*tls.CertificateVerificationError](e); ok {
		return fault.Untrusted, identity.Distrust(why, use)
	}
	if alert == certificateRequired {
		return fault.Untrusted, errors.New("this node refuses the peer: it shows no certificate")
	}
	return fault.Untrusted, fmt.Errorf("this node ended the TLS handshake: %w", e)
}
