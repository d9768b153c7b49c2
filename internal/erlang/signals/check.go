package signals

// A Check decides about each frame that one peer sends, in the order in which the VM gets the frames, and before it
// gets them. Its error, a [Violation], ends the channel. A check belongs to one direction of one channel: it is
// called by one goroutine at a time.
//
// Every path to a VM passes its channel's check: each mode of package streams, and the links that webdist copies.
type Check func(*Frame) error

// A Checker makes the check of a channel from this peer.
type Checker func(Peer) Check

// A Peer is the node whose frames a check sees.
type Peer struct {
	Node     string // its name; empty where only the VM knows it, which holds the peer to it
	Identity string // what its certificate names, in words; empty if certificates do not authenticate
}

// A Frame is one that a peer has sent. It is valid during the call of a check.
type Frame struct {
	head  []byte // the first [Prefix] bytes, or more, or all
	total int
	cache *AtomCache
}

// NewFrame returns a frame of total bytes that begins with head: at least its first [Prefix] bytes, or all of it.
// Cache says whether the nodes of the channel agree on the atom cache; nil: they do not.
func NewFrame(head []byte, total int, cache *AtomCache) Frame { return Frame{head, total, cache} }

// Size returns the size of the frame in bytes.
func (f *Frame) Size() int { return f.total }

// IsWhole reports whether the frame is a tick, or a whole signal whose header the nodes have agreed on.
func (f *Frame) IsWhole() bool {
	return f.total == 0 ||
		len(f.head) >= 3 && f.head[0] == version && f.head[1] == header && (f.head[2] == 0 || f.cache.Agreed())
}

// Info classifies the frame. The first fragment of a signal with atom references is not read any further than its
// numbers. The error is a [Violation].
func (f *Frame) Info() (Info, error) {
	references := len(f.head) >= fragmentHeaderLen && f.head[0] == version && f.head[1] == fragmentHeader &&
		f.head[fragmentHeaderLen-1] != 0
	if !references || !f.cache.Agreed() {
		return Classify(f.head, f.total)
	}
	i := Info{Kind: FirstFragment}
	if err := i.readNumbers(f.head); err != nil {
		return Info{}, err
	}
	return i, nil
}

// ProtectVM is the [Checker] that refuses what could end the VM or take its memory, whoever the peer is: the package
// comment has the list.
func ProtectVM(Peer) Check {
	var open Sequences
	return func(f *Frame) error {
		if f.IsWhole() {
			return nil // the BEAM itself finds what else may be wrong with it
		}
		info, err := f.Info()
		if err != nil {
			return err
		}
		return open.Follow(&info)
	}
}
