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

// Those of foreign terms.
const (
	tagFloat      = 70
	tagBits       = 77
	tagPid        = 88
	tagPort       = 89 // with 32 bits, which OTP 25 writes where they are enough
	tagReference  = 90
	tagLargeTuple = 105
	tagLargeBig   = 111
	tagFun        = 112
	tagExport     = 113
	tagWidePort   = 120
)

const (
	maxAtomChars    = 255
	maxBigBytes     = 8
	maxStringLength = 65535

	maxReferenceWords = 5
	maxForeignBig     = 128 << 10 // bytes, twice what a BEAM of OTP 27 and later makes
)
