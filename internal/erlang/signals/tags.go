package signals

// The first bytes of a frame, and the second of one that begins with the version (external.c of ERTS, PASS_THROUGH;
// erts/doc, "Distribution Header").
const (
	version         = 131
	passThrough     = 112
	header          = 68
	fragmentHeader  = 69
	fragmentTrailer = 70
)

// The tags of the External Term Format (external.h of ERTS) that stand in a control message up to its sender.
const (
	tagAtomReference  = 82
	tagNewPid         = 88
	tagNewerReference = 90
	tagSmallInteger   = 97
	tagInteger        = 98
	tagAtom           = 100
	tagSmallTuple     = 104
	tagLargeTuple     = 105
	tagSmallBig       = 110
	tagSmallAtom      = 115
	tagAtomUTF8       = 118
	tagSmallAtomUTF8  = 119
)
