package cookie

import (
	"context"
	"encoding/hex"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// The example of WIRE.md, section 6: another implementation has to come to the same.
func TestProofsAreWhatTheDocumentSays(t *testing.T) {
	key, err := NewKeyring().key(context.Background(), []byte("secret"), true)
	if err != nil {
		t.Fatal(err)
	}
	exported := make([]byte, 32)
	for i := range exported {
		exported[i] = byte(i)
	}
	for _, c := range []struct {
		what string
		got  [32]byte
		want string
	}{
		{"key", key, "55792cdb9f30ccc2a1e9d28df0e71c54902d929a19fa4d9f2b9429350dd91b68"},
		{"dialler's proof", key.proof(RoleDialler, exported), "5037da644cd43c8cf901b770f711c8fb9c487d4c293df3f20ed862b51012667f"},
		{"acceptor's proof", key.proof(RoleAcceptor, exported), "915af4bfc22bbe03e1728310388e77fd3f026c5fd1afa46465e6c9f29aafab47"},
	} {
		if got := hex.EncodeToString(c.got[:]); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.what, got, c.want)
		}
	}
}

// No proof shows nothing, not even where none would be right.
func TestNoProofShowsNothing(t *testing.T) {
	var none Proof
	one := Proof{31: 1}
	if none.Matches(&none) || none.Matches(&one) || one.Matches(&none) || !one.Matches(&one) {
		t.Errorf("%v %v %v %v", none.Matches(&none), none.Matches(&one), one.Matches(&none), one.Matches(&one))
	}
}

// A derivation's memory is not kept: a sidecar may never derive another key.
func TestKeyringGivesMemoryBack(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if _, err := NewKeyring().key(context.Background(), []byte("give it back"), true); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys-after.HeapReleased) - int64(before.HeapSys-before.HeapReleased); grown > 16<<20 {
		t.Errorf("%d KiB more are held", grown>>10)
	}
}

// A cookie that is wanted by many at once is derived once, and found from then on by whoever has no time at all.
func TestKeyringDerivesACookieOnce(t *testing.T) {
	k := NewKeyring()
	keys := make([]proofKey, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			key, err := k.key(context.Background(), []byte("once"), true)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	wg.Wait()
	for _, key := range keys {
		if key == (proofKey{}) || key != keys[0] {
			t.Fatalf("got %x and %x", keys[0], key)
		}
	}
	if len(k.keys) != 1 {
		t.Errorf("%d keys are kept of one cookie", len(k.keys))
	}
	past, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := k.key(past, []byte("once"), true); err != nil {
		t.Errorf("a known cookie: %v", err)
	}
}

// Whoever waits for another's derivation waits no longer than he may.
func TestKeyringWaitsNoLongerThanItsContext(t *testing.T) {
	k := NewKeyring()
	k.deriving <- struct{}{} // another's
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("no time")
	cancel(why)
	if _, err := k.key(ctx, []byte("late"), true); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

// A key is there for who waits for it as soon as it is derived, while who has derived it still gives the memory back.
func TestKeyringHasAKeyBeforeItsMemoryIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := NewKeyring()
		k.deriving <- struct{}{} // until the memory is gone
		cookie, want := []byte("soon"), proofKey{1}
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if key, err := k.key(context.Background(), cookie, true); err != nil || key != want {
				t.Errorf("%x, %v", key, err)
			}
		})
		for tag, key := range map[string]proofKey{"another's": {2}, string(cookie): want} {
			synctest.Wait() // until it waits
			k.keep(k.tag([]byte(tag)), key, false)
		}
		waiting.Wait()
	})
}

func TestKeyringForgetsTheLeastRecentlyUsed(t *testing.T) {
	k := NewKeyring()
	tag := func(i int) [32]byte { return [32]byte{byte(i), byte(i >> 8), 1} }
	for i := range maxKeys {
		k.keep(tag(i), proofKey{byte(i), 0xfe}, false)
	}
	if _, ok, _ := k.find(tag(0), false); !ok {
		t.Fatal("the first is gone while there is room")
	}
	for i := maxKeys; i < 3*maxKeys/2; i++ {
		k.keep(tag(i), proofKey{byte(i), 0xfe}, false)
	}
	if len(k.keys) != maxKeys || cap(k.keys) != maxKeys {
		t.Errorf("%d keys are kept, with room for %d", len(k.keys), cap(k.keys))
	}
	for i := range 3 * maxKeys / 2 {
		key, ok, _ := k.find(tag(i), false)
		// The first was used after all others of its time, so that it is the last of them to go.
		if want := i == 0 || i > maxKeys/2; ok != want {
			t.Errorf("key %d is kept: %v", i, ok)
		} else if ok && key != (proofKey{byte(i), 0xfe}) {
			t.Errorf("key %d is %x", i, key)
		}
	}
	seen := make(map[proofKey]bool)
	for _, kept := range k.keys[:cap(k.keys)] {
		if seen[kept.key] {
			t.Errorf("%x is there twice: a forgotten key is not wiped", kept.key)
		}
		seen[kept.key] = true
	}
}

// Strangers who name many nodes keep nobody waiting whom this node connects to, and take no key of a cookie that it
// uses.
func TestStrangersKeysDoNotStarveOwn(t *testing.T) {
	k := NewKeyring()
	k.judging <- struct{}{} // a stranger's, for as long as this takes
	if err := k.Learn(context.Background(), []byte("own")); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxKeys {
		k.keep(k.tag([]byte{byte(i), 1}), proofKey{1}, false)
	}
	if _, ok, _ := k.find(k.tag([]byte("own")), false); !ok {
		t.Error("the own cookie's key has given way")
	}
}
