package portproto

import (
	"bytes"
	"errors"
	"testing"
)

func TestDataBorrowsItsPayload(t *testing.T) {
	body := []byte{TypeData, 0, 0, 0, 7, 'a', 'b'}
	f, err := ParseFromVM(body)
	if err != nil {
		t.Fatal(err)
	}
	body[5] = 'c'
	if d := f.(*Data); d.Channel != 7 || string(d.Payload) != "cb" {
		t.Errorf("got channel %d, %q", d.Channel, d.Payload)
	}
}

func TestAppendKeepsWhatIsInFront(t *testing.T) {
	for _, f := range []Frame{&Data{Channel: 7, Payload: []byte("x")}, &Credit{Channel: 7, Bytes: 1}, &Stop{}} {
		if got, want := Append([]byte("head"), f), append([]byte("head"), Append(nil, f)...); !bytes.Equal(got, want) {
			t.Errorf("%v: got %x, want %x", f, got, want)
		}
	}
}

func TestDataHeaderIsTheBeginningOfADataFrame(t *testing.T) {
	payload := []byte("payload")
	want := Append(nil, &Data{Channel: 1 << 30, Payload: payload})
	frame := make([]byte, DataHeaderLen, 64)
	frame = append(frame, payload...)
	PutDataHeader(frame, 1<<30, len(payload))
	if !bytes.Equal(frame, want) {
		t.Errorf("got %x, want %x", frame, want)
	}
	if got := AppendDataHeader(nil, 1<<30, len(payload)); !bytes.Equal(got, want[:DataHeaderLen]) {
		t.Errorf("got %x, want %x", got, want[:DataHeaderLen])
	}
}

func TestParseDataKeepsItsLimits(t *testing.T) {
	for _, c := range []struct {
		length int
		want   Kind // or empty
	}{
		{0, KindTruncated},
		{dataFixed, KindTruncated},
		{dataFixed + 1, ""},
		{MaxFrame, ""},
		{MaxFrame + 1, KindTooLarge},
	} {
		_, payload, err := ParseData(make([]byte, c.length))
		var refusal *ProtocolError
		switch {
		case c.want == "" && (err != nil || len(payload) != c.length-dataFixed):
			t.Errorf("%d bytes: %d bytes of payload, %v", c.length, len(payload), err)
		case c.want != "" && (!errors.As(err, &refusal) || refusal.Kind != c.want):
			t.Errorf("%d bytes: %v", c.length, err)
		}
	}
}

func TestTypeOfAnEmptyBodyIsNone(t *testing.T) {
	if got := Type(nil); got != 0 {
		t.Errorf("got %d", got)
	}
}

func TestDataPathDoesNotAllocate(t *testing.T) {
	data := Append(nil, &Data{Channel: 7, Payload: make([]byte, 1000)})
	credit := Append(nil, &Credit{Channel: 7, Bytes: 1})
	buf := make([]byte, 0, 64)
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"ParseData", func() { ParseData(data[lengthLen:]) }},
		{"ParseCredit", func() { ParseCredit(credit[lengthLen:]) }},
		{"PutDataHeader", func() { PutDataHeader(data, 7, 1000) }},
		{"AppendDataHeader", func() { AppendDataHeader(buf, 7, 1000) }},
		{"AppendCredit", func() { AppendCredit(buf, 7, 1000) }},
	} {
		if got := testing.AllocsPerRun(100, c.do); got != 0 {
			t.Errorf("%s: %v allocations", c.name, got)
		}
	}
}
