package etf

// The tags of the External Term Format that this package knows.
const (
	versionByte = 131

	tagSmallInteger  = 97
	tagInteger       = 98
	tagAtom          = 100 // Latin-1, only read
	tagSmallTuple    = 104
	tagNil           = 106
	tagString        = 107 // a list of bytes
	tagList          = 108
	tagBinary        = 109
	tagSmallBig      = 110
	tagMap           = 116
	tagAtomUTF8      = 118
	tagSmallAtomUTF8 = 119
)

const (
	maxAtomChars    = 255
	maxBigBytes     = 8
	maxStringLength = 65535
)
