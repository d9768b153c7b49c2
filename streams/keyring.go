package streams

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"runtime/debug"
	"sync"

	"golang.org/x/crypto/argon2"
)

const (
	// The cost of a guess at a cookie, for whoever holds a proof that he has been shown: Argon2id (RFC 9106), of which the peers
	// must have the same. Three passes over 32 MiB take about 150 ms here. The first connection of a cookie waits for
	// that twice, in the dialler and then in the acceptor, and no later one does.
	argonPasses = 3
	argonMemory = 32 << 10 // KiB
	argonLanes  = 1        // the sidecar has half of the processors, often one
	argonSalt   = "erldist/1 cookie"

	// maxKeys is how many cookies' keys are kept. A cluster has one cookie, or one for each of some pairs of nodes.
	maxKeys = 64
)

// DerivationMemory is what the derivation of a key takes, in bytes.
const DerivationMemory = argonMemory << 10

// A proofKey is derived from a cookie, and is what proofs are made with: WIRE.md, section 6.
type proofKey [sha256.Size]byte

// A Keyring derives keys from cookies and keeps them, so that a cookie costs its derivation once. It holds at most 64 keys
// and no cookie, and forgets the key that was not used for the longest time. It is for any number of endpoints and
// goroutines; it starts none.
type Keyring struct {
	secret   [sha256.Size]byte // of this process: a key is found by the cookie's HMAC with it
	deriving chan struct{}     // holds a token while a key is derived: one at a time, for the memory it takes

	mu      sync.Mutex
	keys    []keptKey     // the last used is the last
	another chan struct{} // closed when there is another key, and replaced
}

type keptKey struct {
	tag [sha256.Size]byte
	key proofKey
}

// NewKeyring returns a keyring without keys.
func NewKeyring() *Keyring {
	k := &Keyring{deriving: make(chan struct{}, 1), another: make(chan struct{})}
	rand.Read(k.secret[:])
	return k
}

// Learn derives the key of a cookie that will soon be needed, if the keyring does not have it. The error is ctx's cause,
// if ctx ended before the derivation began.
func (k *Keyring) Learn(ctx context.Context, cookie []byte) error {
	_, err := k.key(ctx, cookie)
	return err
}

// key returns the key of a cookie. It waits for derivations that others have begun until ctx ends, and then returns its
// cause; its own, once begun, cannot be interrupted.
func (k *Keyring) key(ctx context.Context, cookie []byte) (proofKey, error) {
	tag := k.tag(cookie)
	for {
		key, ok, another := k.find(tag)
		if ok {
			return key, nil
		}
		select {
		case k.deriving <- struct{}{}:
			return k.derive(ctx, tag, cookie)
		case <-another: // the wanted one, perhaps: who derived it has still to give its memory back
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

// derive makes a key, unless there is one now. Its caller has put the token into deriving, and it takes that out.
func (k *Keyring) derive(ctx context.Context, tag [sha256.Size]byte, cookie []byte) (proofKey, error) {
	defer func() { <-k.deriving }()
	if ctx.Err() != nil { // select chooses by chance
		return proofKey{}, context.Cause(ctx)
	}
	if key, ok, _ := k.find(tag); ok { // another wanted it too, and was first
		return key, nil
	}
	derived := argon2.IDKey(cookie, []byte(argonSalt), argonPasses, argonMemory, argonLanes, sha256.Size)
	key := proofKey(derived)
	clear(derived)
	k.keep(tag, key)
	debug.FreeOSMemory() // the next derivation may be never
	return key, nil
}

// find returns the key of a tag; if there is none, what is closed when there is another key.
func (k *Keyring) find(tag [sha256.Size]byte) (key proofKey, ok bool, another <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, kept := range k.keys {
		if kept.tag == tag {
			copy(k.keys[i:], k.keys[i+1:])
			k.keys[len(k.keys)-1] = kept
			return kept.key, true, nil
		}
	}
	return proofKey{}, false, k.another
}

// keep adds a key. One that has to give way is wiped: the place is taken by its neighbour, and the last by the new one.
func (k *Keyring) keep(tag [sha256.Size]byte, key proofKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil {
		k.keys = make([]keptKey, 0, maxKeys) // never moved, so that no copy stays behind
	}
	if len(k.keys) == maxKeys {
		copy(k.keys, k.keys[1:])
		k.keys = k.keys[:maxKeys-1]
	}
	k.keys = append(k.keys, keptKey{tag, key})
	close(k.another)
	k.another = make(chan struct{})
}
