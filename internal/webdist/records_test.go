package webdist

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
)

// aRecord is a TLS record of application data.
func aRecord(size int) []byte {
	return append([]byte{23, 3, 3, byte(size >> 8), byte(size)}, bytes.Repeat([]byte{23}, size)...)
}

// TestRecordsAreCountedHoweverTheyAreCut: whole, byte by byte, and cut in two at every byte.
func TestRecordsAreCountedHoweverTheyAreCut(t *testing.T) {
	all := bytes.Join([][]byte{aRecord(1), aRecord(300), aRecord(0), aRecord(0), aRecord(16), aRecord(260)}, nil)
	counted := func(pieces ...[]byte) (n uint64) {
		var r records
		for _, piece := range pieces {
			n += r.begun(piece)
		}
		return n
	}
	for cut := range all {
		if n := counted(all[:cut], all[cut:]); n != 6 {
			t.Fatalf("cut at %d: %d records, want 6", cut, n)
		}
	}
	if n := counted(slices.Collect(slices.Chunk(all, 1))...); n != 6 {
		t.Errorf("byte by byte: %d records, want 6", n)
	}
}

// A scriptedConn gives what was written, and takes everything.
type scriptedConn struct {
	net.Conn
	from io.Reader
}

func (c scriptedConn) Read(b []byte) (int, error)  { return c.from.Read(b) }
func (c scriptedConn) Write(b []byte) (int, error) { return len(b), nil }

// TestEachDirectionOfAKeyHasItsOwnCount: at two thirds of the limit it is told, then links end, the dialler's first,
// and at the limit nothing passes any more.
func TestEachDirectionOfAKeyHasItsOwnCount(t *testing.T) {
	const limit = 96
	for _, c := range []struct {
		dialler bool
		end     int
	}{{true, 90}, {false, 93}} {
		key := newKey(limit, c.dialler)
		conn := &countedConn{scriptedConn{from: bytes.NewReader(bytes.Repeat(aRecord(10), limit+1))}, key}
		for n := 1; n <= 63; n++ {
			if _, err := conn.Write(aRecord(10)); err != nil {
				t.Fatal(err)
			}
		}
		for n := 1; n <= limit; n++ {
			if _, err := io.ReadFull(conn, make([]byte, 15)); err != nil {
				t.Fatal(err)
			}
			if near, worn := key.near.Err() != nil, key.wornOut(); near != (n >= 64) || worn != (n >= c.end) {
				t.Fatalf("dialler %t, %d records: near %t, worn %t", c.dialler, n, near, worn)
			}
		}
		if _, err := conn.Read(make([]byte, 1)); err != errKeyUsedUp {
			t.Errorf("behind the limit: %v", err)
		}
		if _, err := conn.Write(aRecord(10)); err != nil {
			t.Errorf("the other direction: %v", err)
		}
	}
}

// FuzzRecords: bytes that are no records harm nothing, and how they are cut does not matter.
func FuzzRecords(f *testing.F) {
	f.Add(aRecord(3), uint16(4))
	f.Add(append(aRecord(0), 23, 3, 3, 255, 255, 0), uint16(2))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		var whole, halves records
		want := whole.begun(b)
		at := min(int(cut), len(b))
		if got := halves.begun(b[:at]) + halves.begun(b[at:]); got != want {
			t.Errorf("%d records, and cut at %d: %d", want, at, got)
		}
		heads := uint64(0)
		for rest := b; len(rest) >= recordHead; heads++ {
			rest = rest[min(len(rest), recordHead+int(binary.BigEndian.Uint16(rest[3:]))):]
		}
		if heads != want {
			t.Errorf("%d records, and counted otherwise: %d", want, heads)
		}
	})
}

// FuzzBorders: where frames end is found however they are cut.
func FuzzBorders(f *testing.F) {
	f.Add([]byte("\x00\x02sx\x00\x01r\x00\x00\x00\x00\x00\x00\x00\x01a\x00"), uint16(3), false)
	f.Add([]byte("\x00\x00\x00\x02ab\x00\x00\x00\x00"), uint16(5), true)
	f.Fuzz(func(t *testing.T, b []byte, cut uint16, data bool) {
		whole, halves := borders{data: data}, borders{data: data}
		want := whole.pass(b)
		at := min(int(cut), len(b))
		first, second := halves.pass(b[:at]), halves.pass(b[at:])
		if second > 0 {
			first = at + second
		}
		if first != want || whole.here() != halves.here() || whole.here() != (want == len(b)) {
			t.Errorf("the last border is at %d, and cut at %d: %d", want, at, first)
		}
	})
}
