package node

// flags are the capabilities of a node: dist.hrl of OTP's kernel, DFLAG_*.
type flags uint64

const (
	extendedReferences flags = 1 << 2
	distMonitor        flags = 1 << 3
	funTags            flags = 1 << 4
	distMonitorName    flags = 1 << 5
	newFunTags         flags = 1 << 7
	extendedPidsPorts  flags = 1 << 8
	exportPtrTag       flags = 1 << 9
	bitBinaries        flags = 1 << 10
	newFloats          flags = 1 << 11
	unicodeIO          flags = 1 << 12
	smallAtomTags      flags = 1 << 14
	utf8Atoms          flags = 1 << 16
	mapTag             flags = 1 << 17
	bigCreation        flags = 1 << 18
	sendSender         flags = 1 << 19
	exitPayload        flags = 1 << 22
	handshake23        flags = 1 << 24
	unlinkID           flags = 1 << 25
	mandatory25        flags = 1 << 26 // stands for all flags that OTP 25 demands
	spawn              flags = 1 << 32
	nameMe             flags = 1 << 33
	v4NC               flags = 1 << 34

	// ours has all that OTP 25 to 29 demand. It leaves out DFLAG_PUBLISHED, as hidden nodes do; the atom cache and
	// fragments, so that each signal is one frame that needs no other; and aliases, because this node makes none.
	ours = extendedReferences | distMonitor | funTags | distMonitorName | newFunTags | extendedPidsPorts | exportPtrTag |
		bitBinaries | newFloats | unicodeIO | smallAtomTags | utf8Atoms | mapTag | bigCreation | sendSender | exitPayload |
		handshake23 | unlinkID | mandatory25 | spawn | v4NC

	// demanded is what the other node must have to understand this node. mandatory25 stands for older flags, which
	// expanded adds.
	demanded = extendedReferences | funTags | newFunTags | extendedPidsPorts | exportPtrTag | bitBinaries | newFloats |
		utf8Atoms |
		mapTag | bigCreation | handshake23 | spawn
)

// expanded adds the flags that mandatory25 stands for.
func (f flags) expanded() flags {
	if f&mandatory25 != 0 {
		f |= extendedReferences | funTags | newFunTags | extendedPidsPorts | exportPtrTag | bitBinaries | newFloats |
			utf8Atoms |
			mapTag | bigCreation | handshake23
	}
	return f
}
