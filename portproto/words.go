package portproto

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

func (l Level) known() bool {
	switch l {
	case LevelError, LevelWarning, LevelNotice, LevelInfo, LevelDebug:
		return true
	}
	return false
}

// Code says why a request could not be served. PROTOCOL.md, section 7, tells when each is used.
type Code string

// The codes of [Error], all of them.
const (
	CodeBadCertificate   Code = "bad_certificate"
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

func (c Code) known() bool {
	switch c {
	case CodeBadCertificate, CodeBadAddress, CodeAddressInUse, CodePermissionDenied, CodeUnknownHost, CodeUnreachable,
		CodeRefused, CodeTimeout, CodeWireVersion, CodeUntrusted, CodePeerRefused, CodeCancelled, CodeNotConfigured,
		CodeLimit, CodeInternal:
		return true
	}
	return false
}

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

func (r Reason) known() bool {
	switch r {
	case ReasonLocal, ReasonPeerClosed, ReasonConnectionLost, ReasonProtocolError, ReasonStopping:
		return true
	}
	return false
}
