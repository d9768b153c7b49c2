package portproto

import (
	"slices"

	"quic_dist/internal/erlang/etf"
)

// A wordType is a type whose values are the words of a closed set.
type wordType[W any] interface {
	~string
	known() []W
}

// word is an atom, one of the known ones.
type word[W ~string] struct {
	target *W
	known  []W
}

// wordIn is any word of the target's type.
func wordIn[W wordType[W]](target *W) word[W] { return word[W]{target, (*target).known()} }

// optionalWord is left out while the target is empty.
func optionalWord[W wordType[W]](target *W) optionalValue {
	return optionalValue{wordIn(target), *target == ""}
}

func (v word[W]) parse(t etf.Term) bool {
	a, ok := t.(etf.Atom)
	*v.target = W(a)
	return ok && slices.Contains(v.known, *v.target)
}

func (v word[W]) term() etf.Term             { return etf.Atom(*v.target) }
func (v word[W]) appendText(b []byte) []byte { return append(b, *v.target...) }

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

func (Level) known() []Level {
	return []Level{LevelError, LevelWarning, LevelNotice, LevelInfo, LevelDebug}
}

// DataPlane says how a channel's data gets from the VM to the sidecar: PROTOCOL.md, section 5.
type DataPlane string

// The data planes that [Configure] may ask for. DataPlaneAuto is a socket where the system has one.
const (
	DataPlaneAuto   DataPlane = "auto"
	DataPlaneSocket DataPlane = "socket"
	DataPlaneStdio  DataPlane = "stdio"
)

func (DataPlane) known() []DataPlane {
	return []DataPlane{DataPlaneAuto, DataPlaneSocket, DataPlaneStdio}
}

// Path says over what the streams of a channel go: streams/WIRE.md, section 10.
type Path string

// The words of Path.
const (
	PathQUIC Path = "quic"
	PathAuto Path = "auto"
	PathTCP  Path = "tcp"
)

func (Path) known() []Path { return []Path{PathQUIC, PathAuto, PathTCP} }

// LocalLinks says which local links a node may have: streams/WIRE.md, section 11.
type LocalLinks string

// What [Configure] may ask for. LocalLinksAuto is where cookies authenticate.
const (
	LocalLinksAuto     LocalLinks = "auto"
	LocalLinksSameUser LocalLinks = "same_user"
	LocalLinksOff      LocalLinks = "off"
)

func (LocalLinks) known() []LocalLinks {
	return []LocalLinks{LocalLinksAuto, LocalLinksSameUser, LocalLinksOff}
}

// CertificateNames says which names in a peer's certificate must match the peer: streams/WIRE.md, section 6.
type CertificateNames string

// What [Configure] may ask for.
const (
	CertificateNamesAny  CertificateNames = "any"
	CertificateNamesNode CertificateNames = "node"
	CertificateNamesHost CertificateNames = "host"
)

func (CertificateNames) known() []CertificateNames {
	return []CertificateNames{CertificateNamesAny, CertificateNamesNode, CertificateNamesHost}
}

// CertificateOption is the field of [Configure] that names a file of certificates.
type CertificateOption string

// The options of files that hold certificates.
const (
	OptionCertFile   CertificateOption = "certfile"
	OptionCACertFile CertificateOption = "cacertfile"
)

func (CertificateOption) known() []CertificateOption {
	return []CertificateOption{OptionCertFile, OptionCACertFile}
}

// Mode says which frames of a channel may leave its main stream: PROTOCOL.md, section 5.
type Mode string

// All modes.
const (
	ModeSingle Mode = "single"
	ModeBulk   Mode = "bulk"
	ModeSender Mode = "sender"
)

func (Mode) known() []Mode { return []Mode{ModeSingle, ModeBulk, ModeSender} }

// Code says why a request could not be served. PROTOCOL.md, section 7, tells when each is used.
type Code string

// All codes of [Error].
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

func (Code) known() []Code {
	return []Code{
		CodeBadCertificate, CodeBadFile, CodeBadAddress, CodeAddressInUse, CodePermissionDenied, CodeUnknownHost,
		CodeUnreachable, CodeRefused, CodeTimeout, CodeWireVersion, CodeUntrusted, CodePeerRefused, CodeCancelled,
		CodeNotConfigured, CodeLimit, CodeInternal,
	}
}

// Reason says why a channel ended. PROTOCOL.md, section 7, tells when each is used.
type Reason string

// All reasons of [Closed].
const (
	ReasonLocal          Reason = "local"
	ReasonPeerClosed     Reason = "peer_closed"
	ReasonConnectionLost Reason = "connection_lost"
	ReasonProtocolError  Reason = "protocol_error"
	ReasonStopping       Reason = "stopping"
)

func (Reason) known() []Reason {
	return []Reason{ReasonLocal, ReasonPeerClosed, ReasonConnectionLost, ReasonProtocolError, ReasonStopping}
}
