package streams

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// segmented returns the control message that has the kernel cut what is sent into datagrams.
func segmented(size uint16) []byte {
	oob := make([]byte, unix.CmsgSpace(2))
	header := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	header.Level, header.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	header.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], size)
	return oob
}

// What the kernel hands out in one piece is read one by one, in order, whatever the number of messages asked for.
func TestDatagramReaderSplitsWhatTheKernelJoined(t *testing.T) {
	receiver, at := udp(t)
	sender, from := udp(t)
	r := newDatagramReader(receiver)
	want := make([]byte, 11*1000+50)
	for i := range want {
		want[i] = byte(i / 1000)
	}
	if _, _, err := sender.WriteMsgUDP(want, segmented(1000), net.UDPAddrFromAddrPort(at)); err != nil {
		t.Skip("no segmentation offload: ", err)
	}
	if _, err := sender.WriteTo([]byte("alone"), net.UDPAddrFromAddrPort(at)); err != nil {
		t.Fatal(err)
	}
	var sizes []int
	var got []byte
	for len(sizes) < 13 {
		messages := emptyMessages(4)
		n, err := r.ReadBatch(messages, 0)
		if err != nil || n < 1 {
			t.Fatal(n, err)
		}
		for _, m := range messages[:n] {
			if addrPort(m.Addr) != from {
				t.Errorf("from %s, want %s", m.Addr, from)
			}
			sizes = append(sizes, m.N)
			got = append(got, m.Buffers[0][:m.N]...)
		}
	}
	for i, size := range sizes[:11] {
		if size != 1000 {
			t.Errorf("datagram %d has %d bytes", i, size)
		}
	}
	if sizes[11] != 50 || sizes[12] != 5 || !bytes.Equal(got, append(want, "alone"...)) {
		t.Errorf("the last have %d bytes, or their content is wrong", sizes[11:])
	}
}

// A datagram of no bytes is one: quic-go drops it.
func TestDatagramReaderReadsEmptyDatagrams(t *testing.T) {
	receiver, at := udp(t)
	sender, _ := udp(t)
	r := newDatagramReader(receiver)
	for _, text := range []string{"", "x"} {
		if _, err := sender.WriteTo([]byte(text), net.UDPAddrFromAddrPort(at)); err != nil {
			t.Fatal(err)
		}
		messages := emptyMessages(2)
		if n, err := r.ReadBatch(messages, 0); n != 1 || err != nil ||
			string(messages[0].Buffers[0][:messages[0].N]) != text {
			t.Errorf("%q: %d messages of %d bytes, %v", text, n, messages[0].N, err)
		}
	}
}

func TestDatagramReaderDoesNotAllocate(t *testing.T) {
	receiver, at := udp(t)
	sender, _ := udp(t)
	r := newDatagramReader(receiver)
	messages, datagram := emptyMessages(8), make([]byte, 1000)
	if allocs := testing.AllocsPerRun(100, func() {
		if _, err := sender.WriteToUDPAddrPort(datagram, at); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReadBatch(messages, 0); err != nil {
			t.Fatal(err)
		}
	}); allocs > 0 {
		t.Errorf("%.0f allocations for a datagram", allocs)
	}
}
