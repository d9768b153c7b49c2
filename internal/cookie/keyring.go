package cookie

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"runtime/debug"
	"slices"
	"sync"

	"golang.org/x/crypto/argon2"
)

const (
	// The cost of a guess at a cookie, for an attacker that holds a proof: Argon2id (RFC 9106), with the same
	// parameters on all nodes. Three passes over 32 MiB take about 150 ms here. The first connection of a cookie
	// waits for that twice, in the dialler and then in the acceptor; later connections do not.
	argonPasses = 3
	argonMemory = 32 << 10 // KiB
	argonLanes  = 1        // the sidecar has half of the processors, often one
	argonSalt   = "erldist/1 cookie"

	// maxKeys is how many cookies' keys are kept. A cluster has one cookie, or one for each of some pairs of nodes.
	maxKeys = 64
)

// DerivationMemory is what the derivation of a key takes, in bytes.
const DerivationMemory = argonMemory << 10

// A proofKey is derived from a cookie, and makes proofs: streams/WIRE.md, section 6.
type proofKey [sha256.Size]byte

// A Keyring derives keys from cookies and keeps them, so that a cookie costs its derivation once. It holds at most
// 64 keys and no cookie, and forgets the key that was not used for the longest time. It is for any number of
// endpoints and goroutines; it starts none.
type Keyring struct {
	secret   [sha256.Size]byte // of this process: a key is found by the cookie's HMAC with it
	deriving chan struct{}     // holds a token while a key is derived: one at a time, for the memory it takes
	judging  chan struct{}     // a token for peers that may be strangers, so that they delay only each other

	mu      sync.Mutex
	keys    []keptKey     // least recently used first
	another chan struct{} // closed when there is another key, and replaced
}

type keptKey struct {
	tag [sha256.Size]byte
	key proofKey
	own bool // this node uses the cookie itself, so that strangers' keys do not displace this one
}

// NewKeyring returns a keyring without keys.
func NewKeyring() *Keyring {
	k := &Keyring{deriving: make(chan struct{}, 1), judging: make(chan struct{}, 1), another: make(chan struct{})}
	rand.Read(k.secret[:])
	return k
}

// Learn derives the key of a cookie that will soon be needed, if the keyring does not have it. The error is ctx's
// cause, if ctx ended before the derivation began.
func (k *Keyring) Learn(ctx context.Context, cookie []byte) error {
	_, err := k.key(ctx, cookie, true)
	return err
}

// key returns the key of a cookie. It waits for derivations that others have begun until ctx ends, and then returns
// its cause; its own, once begun, cannot be interrupted.
//
// Own says that this node uses the cookie to connect itself; else a peer does, or a stranger.
func (k *Keyring) key(ctx context.Context, cookie []byte, own bool) (proofKey, error) {
	tag, slot := k.tag(cookie), k.judging
	if own {
		slot = k.deriving
	}
	for {
		key, ok, another := k.find(tag, own)
		if ok {
			return key, nil
		}
		select {
		case slot <- struct{}{}:
			return k.derive(ctx, slot, tag, cookie, own)
		case <-another: // perhaps the wanted one, whose derivation has still to give its memory back
		case <-ctx.Done():
			return proofKey{}, context.Cause(ctx)
		}
	}
}

func (k *Keyring) tag(cookie []byte) [sha256.Size]byte {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write(cookie)
	return [sha256.Size]byte(mac.Sum(nil))
}

// derive makes a key, unless there is one now. Its caller has put the token into slot, and it takes that out.
func (k *Keyring) derive(ctx context.Context, slot chan struct{}, tag [sha256.Size]byte, cookie []byte,
	own bool) (proofKey, error) {
	defer func() { <-slot }()
	if ctx.Err() != nil { // select chooses by chance
		return proofKey{}, context.Cause(ctx)
	}
	if key, ok, _ := k.find(tag, own); ok { // another call was faster
		return key, nil
	}
	derived := argon2.IDKey(cookie, []byte(argonSalt), argonPasses, argonMemory, argonLanes, sha256.Size)
	key := proofKey(derived)
	clear(derived)
	k.keep(tag, key, own)
	debug.FreeOSMemory() // the next derivation may be never
	return key, nil
}

// find returns the key of a tag; if there is none, a channel that is closed when there is another key.
func (k *Keyring) find(tag [sha256.Size]byte, own bool) (key proofKey, ok bool, another <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, kept := range k.keys {
		if kept.tag == tag {
			kept.own = kept.own || own
			copy(k.keys[i:], k.keys[i+1:])
			k.keys[len(k.keys)-1] = kept
			return kept.key, true, nil
		}
	}
	return proofKey{}, false, k.another
}

// keep adds a key. It overwrites a key that is dropped with the one behind it, and the last with the new key.
func (k *Keyring) keep(tag [sha256.Size]byte, key proofKey, own bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil {
		k.keys = make([]keptKey, 0, maxKeys) // never moved, so that no copy stays behind
	}
	if len(k.keys) == maxKeys {
		out := max(0, slices.IndexFunc(k.keys, func(kept keptKey) bool { return !kept.own }))
		copy(k.keys[out:], k.keys[out+1:])
		k.keys = k.keys[:maxKeys-1]
	}
	k.keys = append(k.keys, keptKey{tag, key, own})
	close(k.another)
	k.another = make(chan struct{})
}
