package signals

import "testing"

// ProtectVM allocates nothing for a frame, whole or a fragment, and neither does a check that wants to know the
// signal.
func TestChecksAllocateNothing(t *testing.T) {
	begin, end := trailer(2, 2), trailer(2, 1)
	begin[1] = fragmentHeader
	begin = append(begin, "\x00\x68\x01\x61\x63"...)
	whole := []byte("\x83\x44\x00\x68\x01\x61\x63")
	check := ProtectVM(Peer{Node: "a@h"})
	var seen Info
	all := Check(func(f *Frame) (err error) {
		seen, err = f.Info()
		return err
	})
	var f Frame
	pass := func(b []byte) {
		f = NewFrame(b, len(b), nil)
		if err := check(&f); err != nil {
			t.Fatal(err)
		}
		if err := all(&f); err != nil {
			t.Fatal(err)
		}
	}
	if got := testing.AllocsPerRun(20, func() {
		pass(whole)
		pass(begin)
		pass(end)
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
	if seen.Kind != Fragment {
		t.Errorf("the last frame is %s", seen)
	}
}
