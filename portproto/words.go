package portproto

import (
	"slices"

	"quic_dist/etf"
)

// parseWord reads an atom that is one of the known words.
func parseWord[W ~string](target *W, t etf.Term, known ...W) bool {
	a, ok := t.(etf.Atom)
	*target = W(a)
	return ok && slices.Contains(known, *target)
}

// Level is a level of the log, with Erlang's names.
type Level string

// The levels, most severe first.
const (
	LevelError   Level = "error"
	LevelWarning Level = "warning"
	LevelNotice  Level = "notice"
	LevelInfo    Level = "info"
	LevelDebug   Level = "debug"
)

func (l *Level) parse(t etf.Term) bool {
	return parseWord(l, t, LevelError, LevelWarning, LevelNotice, LevelInfo, LevelDebug)
}

func (l *Level) term() etf.Term             { return etf.Atom(*l) }
func (l *Level) appendText(b []byte) []byte { return append(b, *l...) }

// DataPlane says how a channel's data gets from the VM to the sidecar: PROTOCOL.md, section 5.
type DataPlane string

// The data planes that [Configure] may ask for. DataPlaneAuto is a socket where that can be had.
const (
	DataPlaneAuto   DataPlane = "auto"
	DataPlaneSocket DataPlane = "socket"
	DataPlaneStdio  DataPlane = "stdio"
)

func (p *DataPlane) parse(t etf.Term) bool {
	return parseWord(p, t, DataPlaneAuto, DataPlaneSocket, DataPlaneStdio)
}

func (p *DataPlane) leftOut() bool              { return *p == "" }
func (p *DataPlane) term() etf.Term             { return etf.Atom(*p) }
func (p *DataPlane) appendText(b []byte) []byte { return append(b, *p...) }

// CertificateNames says which of its names a peer's certificate is held to: streams/WIRE.md, section 6.
type CertificateNames string

// What [Configure] may ask for.
const (
	CertificateNamesAny  CertificateNames = "any"
	CertificateNamesNode CertificateNames = "node"
	CertificateNamesHost CertificateNames = "host"
)

func (n *CertificateNames) parse(t etf.Term) bool {
	return parseWord(n, t, CertificateNamesAny, CertificateNamesNode, CertificateNamesHost)
}

func (n *CertificateNames) leftOut() bool              { return *n == "" }
func (n *CertificateNames) term() etf.Term             { return etf.Atom(*n) }
func (n *CertificateNames) appendText(b []byte) []byte { return append(b, *n...) }

// CertificateOption is the field of [Configure] that names a file of certificates.
type CertificateOption string

// The options of files that hold certificates.
const (
	OptionCertFile   CertificateOption = "certfile"
	OptionCACertFile CertificateOption = "cacertfile"
)

// Mode says which frames of a channel may leave its main stream: PROTOCOL.md, section 5.
type Mode string

// The modes, all of them.
const (
	ModeSingle Mode = "single"
	ModeBulk   Mode = "bulk"
	ModeSender Mode = "sender"
)

func (m *Mode) parse(t etf.Term) bool {
	return parseWord(m, t, ModeSingle, ModeBulk, ModeSender)
}

func (m *Mode) term() etf.Term             { return etf.Atom(*m) }
func (m *Mode) appendText(b []byte) []byte { return append(b, *m...) }

// Code says why a request could not be served. PROTOCOL.md, section 7, tells when each is used.
type Code string

// The codes of [Error], all of them.
const (
	CodeBadCertificate   Code = "bad_certificate"
	CodeBadFile          Code = "bad_file"
	CodeBadAddress       Code = "bad_address"
	CodeAddressInUse     Code = "address_in_use"
	CodePermissionDenied Code = "permission_denied"
	CodeUnknownHost      Code = "unknown_host"
	CodeUnreachable      Code = "unreachable"
	CodeRefused          Code = "refused"
	CodeTimeout          Code = "timeout"
	CodeWireVersion      Code = "wire_version"
	CodeUntrusted        Code = "untrusted"
	CodePeerRefused      Code = "peer_refused"
	CodeCancelled        Code = "cancelled"
	CodeNotConfigured    Code = "not_configured"
	CodeLimit            Code = "limit"
	CodeInternal         Code = "internal"
)

func (c *Code) parse(t etf.Term) bool {
	return parseWord(c, t, CodeBadCertificate, CodeBadFile, CodeBadAddress, CodeAddressInUse, CodePermissionDenied, CodeUnknownHost, CodeUnreachable,
		CodeRefused, CodeTimeout, CodeWireVersion, CodeUntrusted, CodePeerRefused, CodeCancelled, CodeNotConfigured,
		CodeLimit, CodeInternal)
}

func (c *Code) term() etf.Term             { return etf.Atom(*c) }
func (c *Code) appendText(b []byte) []byte { return append(b, *c...) }

// Reason says why a channel ended. PROTOCOL.md, section 7, tells when each is used.
type Reason string

// The reasons of [Closed], all of them.
const (
	ReasonLocal          Reason = "local"
	ReasonPeerClosed     Reason = "peer_closed"
	ReasonConnectionLost Reason = "connection_lost"
	ReasonProtocolError  Reason = "protocol_error"
	ReasonStopping       Reason = "stopping"
)

func (r *Reason) parse(t etf.Term) bool {
	return parseWord(r, t, ReasonLocal, ReasonPeerClosed, ReasonConnectionLost, ReasonProtocolError, ReasonStopping)
}

func (r *Reason) term() etf.Term             { return etf.Atom(*r) }
func (r *Reason) appendText(b []byte) []byte { return append(b, *r...) }
