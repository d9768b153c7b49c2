package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"quic_dist/internal/fault"
)

// Verify judges a peer's certificate by streams/WIRE.md, section 6: chain, path lengths, validity and use, for the role that
// the peer has. The chain begins with the peer's own certificate.
func (id *Identity) Verify(chain []*x509.Certificate, use x509.ExtKeyUsage) error {
	if len(chain) == 0 {
		return errors.New("the peer has no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: id.roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{use},
	})
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	return nil
}

// Admits judges whether a certificate that has passed Verify, and that the peer has proved to own, names the node that the peer
// says it is. The error is the line for the log.
func (r NameRule) Admits(chain []*x509.Certificate, node string) error {
	if len(chain) == 0 {
		return errors.New("the peer has no certificate")
	}
	if err := r.Check(chain[0], node); err != nil {
		return fmt.Errorf("the peer calls itself %s in its hello; %w", fault.Printable(node), err)
	}
	return nil
}

// Trusts judges a peer with this role by its chain and the rule. Without a CAFile it trusts every peer, because certificates do not
// authenticate then. The error is the line for the log.
func (id *Identity) Trusts(rule NameRule, chain []*x509.Certificate, node string, use x509.ExtKeyUsage) error {
	if id.roots == nil {
		return nil
	}
	if err := id.Verify(chain, use); err != nil {
		if why, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return Distrust(why, use)
		}
		return err
	}
	return rule.Admits(chain, node)
}

// TrustsInBothRoles is Trusts, whichever of the two dials.
func (id *Identity) TrustsInBothRoles(rule NameRule, chain []*x509.Certificate, node string) error {
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := id.Trusts(rule, chain, node, use); err != nil {
			return err
		}
	}
	return nil
}

// Distrust says in words why a peer's certificate has not passed [Identity.Verify], for the role that the peer has.
func Distrust(e *tls.CertificateVerificationError, use x509.ExtKeyUsage) error {
	if len(e.UnverifiedCertificates) == 0 {
		return e.Err
	}
	leaf := e.UnverifiedCertificates[0]
	say := func(format string, args ...any) error {
		return fmt.Errorf("this node refuses the peer's certificate (%s): "+format, append([]any{Subject(leaf)}, args...)...)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](e.Err); ok {
		who := "it"
		if invalid.Cert != nil && !bytes.Equal(invalid.Cert.Raw, leaf.Raw) {
			who = fmt.Sprintf("that of its issuer (%s)", Subject(invalid.Cert))
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
		if isEphemeral(leaf) {
			return errors.New("this node refuses the peer: it shows no certificate of its own (it has no certfile), and this node has a cacertfile")
		}
		if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
			return say("it is self-signed, and cacertfile does not hold it")
		}
		return say("it was issued by %s, and no chain leads from it to what cacertfile holds", fault.Printable(leaf.Issuer.String()))
	}
	return say("it is not trusted: %w", e.Err)
}

func roleName(use x509.ExtKeyUsage) string {
	if use == x509.ExtKeyUsageClientAuth {
		return "client"
	}
	return "server"
}
