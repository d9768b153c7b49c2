package webdist

import (
	"crypto/tls"
	"errors"
	"net/http"
	"strconv"
)

// A policy says how the peer of one request for a link is authenticated: by the settings of the node that
// answers, and by what is known of the connection.
type policy struct {
	settings *Settings
	tls      *tls.ConnectionState // nil: TLS does not end here, so nobody is authenticated here
	key      *Key                 // of tls over TCP; else nil
	hello    bool                 // the client says a hello behind the answer

	// Of a request that another process has answered: what that process found out, by its rules.
	answered bool
	proven   bool
	identity string
}

// requestPolicy is for a request to this process. Over TLS the client must prove who it is behind the answer,
// unless the operator has said that a proxy stands in between.
func requestPolicy(settings *Settings, r *http.Request) (policy, *refusal) {
	p := policy{settings: settings, tls: r.TLS}
	p.key, _ = r.Context().Value(keyKey{}).(*Key)
	if p.key.wornOut() {
		return p, refused(http.StatusServiceUnavailable,
			"the key of this TLS connection is nearly used up: use another connection")
	}
	p.hello = r.TLS != nil && r.Header.Get(helloHeader) == helloVersion
	if r.TLS != nil && !p.hello && !settings.InsecureProxy {
		return p, refused(http.StatusForbidden, "over https a node proves who it is")
	}
	return p, nil
}

// passedPolicy is for a connection that the holder of the port has passed on.
func passedPolicy(settings *Settings, p passed) policy {
	return policy{settings: settings, answered: p.Form == formAnswered, proven: p.Proven, identity: p.Identity}
}

// fields are those of the answer with any carrier. Version is of the distribution protocol.
func (p policy) fields(version uint16) http.Header {
	fields := http.Header{"Version": {strconv.Itoa(int(version))}}
	if p.hello {
		fields.Set(helloHeader, helloVersion)
	}
	return fields
}

// allowInClear judges a connection on which nobody is authenticated here: one in clear, or one whose TLS ended
// in the process that holds the port, by the rules of that process. The port may speak what this node does not.
// Certificates says whether this node's peers must show one.
func (p policy) allowInClear(certificates bool) error {
	switch {
	case p.settings.TLS != Only && (!certificates || p.settings.InsecureClear):
		return nil
	case p.answered && (p.settings.InsecureProxy || p.proven && !certificates):
		return nil
	case p.answered:
		return errors.New("its TLS ended in another process, so it has not proved its name to this node " +
			"(option insecure_proxy allows it)")
	case p.settings.TLS == Only:
		return errors.New("it comes in clear, and this node takes links over TLS only (option listen)")
	default:
		return errors.New("it comes in clear, and peers of this node must show certificates, since cacertfile is set " +
			"(option insecure_clear allows it)")
	}
}
