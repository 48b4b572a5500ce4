package redisstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/larderhq/larder/core/internal/tier"
)

// envelope is the value under an entry's name: the entry's conditions and its payload,
// in one string, so that nothing of it can be evicted without the
// rest (rule R1).
//
//	1 byte   magic
//	1 byte   version
//	1 byte   length of the id
//	         id; scripts read it from here and decode nothing else
//	1 byte   flags: provisional, compressed, sealed
//	4 bytes  where the payload begins, counted from the magic
//	varints  born, fresh until, stale until, keep until, load time in nanoseconds
//	uvarint  number of tags; for each its name and its token
//	uvarint  number of eras; for each its partition (a uvarint) and its era
//	         payload; if compressed 4 bytes with the length of an s2 block, the
//	         block, and what fills up to maxRatio; if sealed, all of that sealed, with
//	         everything before it as a part of the context (see sealMark)
//	4 bytes  CRC-32C of all of it
//
// Fixed widths are little-endian, varints those of encoding/binary, strings have
// their length as a uvarint before them.
type envelope struct {
	id string // at most 255 bytes

	born, freshUntil, staleUntil, keepUntil int64 // milliseconds on the server's clock
	loadTime                                time.Duration
	provisional                             bool

	tags    []tier.TagGeneration
	eras    []tier.PartitionEra // of partitions below tier.MaxPartitions
	payload []byte
}

const (
	envelopeMagic   = 0xe7
	envelopeVersion = 1

	envelopeProvisional = 1 << 0
	envelopeCompressed  = 1 << 1
	envelopeSealed      = 1 << 2
	envelopeFlags       = envelopeProvisional | envelopeCompressed | envelopeSealed

	envelopePrefix = 3     // before the id
	envelopeFixed  = 1 + 4 // between the id and the times
	envelopeSum    = crc32.Size
)

// The limits of an envelope. A hostile value can have a valid checksum, so
// these, and not the checksum, bound what decoding allocates.
const (
	maxEnvelopeID     = 255
	maxEnvelopeTags   = 1024
	maxEnvelopeEras   = tier.MaxPartitions
	maxEnvelopeString = 64 << 10

	// maxDecoded is the longest payload: more than twice the longest string of Redis, plus room for
	// the fields around a body.
	maxDecoded = 1<<30 + 1<<20
	// maxRatio is the largest ratio of a payload beyond ratioFree bytes to its compressed form. A
	// form that compresses better is padded with zeros to this ratio. Real payloads do not reach
	// it, and a decompression bomb must be large itself.
	maxRatio  = 256
	ratioFree = 64 << 10

	// minCompress is the shortest payload that is compressed.
	minCompress = 512
)

var (
	// errCorrupt is returned for a value that is not an intact envelope.
	errCorrupt = errors.New("larder: corrupt entry")
	// errVersion is returned for an envelope of another version.
	errVersion = errors.New("larder: entry of an unknown version")
)

// encodeEnvelope appends e to dst, whose spare capacity must not overlap e.payload. An envelope
// beyond the limits appends nothing, and decodeEnvelope rejects the empty value: a missing entry is
// better than one without some of its tags.
func encodeEnvelope(dst []byte, e *envelope) []byte { return encodeSealed(dst, e, nil, nil) }

// encodeSealed is encodeEnvelope with a sealed payload, unless s is nil.
func encodeSealed(dst []byte, e *envelope, s *sealer, context []byte) []byte {
	size, ok := e.headerSize()
	if !ok || len(e.payload) > maxDecoded {
		return dst
	}
	room := len(e.payload)
	if room >= minCompress {
		room = 4 + s2.MaxEncodedLen(room)
	}
	if s != nil {
		room += s.overhead()
	}
	start := len(dst)
	dst = slices.Grow(dst, size+room+envelopeSum)

	dst = append(dst, envelopeMagic, envelopeVersion, byte(len(e.id)))
	dst = append(dst, e.id...)
	flags := len(dst)
	dst = append(dst, make([]byte, envelopeFixed)...)
	for _, t := range [...]int64{e.born, e.freshUntil, e.staleUntil, e.keepUntil, int64(e.loadTime)} {
		dst = binary.AppendVarint(dst, t)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.tags)))
	for _, t := range e.tags {
		dst = appendEnvelopeString(dst, t.Tag)
		dst = appendEnvelopeString(dst, t.Token)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.eras)))
	for _, p := range e.eras {
		dst = binary.AppendUvarint(dst, uint64(p.Partition))
		dst = appendEnvelopeString(dst, p.Era)
	}
	at := len(dst)
	binary.LittleEndian.PutUint32(dst[flags+1:], uint32(at-start))

	if e.provisional {
		dst[flags] |= envelopeProvisional
	}
	if b, ok := appendCompressed(dst, e.payload); ok {
		dst = b
		dst[flags] |= envelopeCompressed
	} else {
		dst = append(dst, e.payload...)
	}
	if s != nil {
		dst[flags] |= envelopeSealed
		dst = s.seal(dst[:at], bytes.Clone(dst[at:]), slices.Concat(context, dst[start:at]))
	}
	return binary.LittleEndian.AppendUint32(dst, envelopeChecksum(dst[start:]))
}

// headerSize returns an upper bound of the length of the header. It returns false if e is beyond
// the limits.
func (e *envelope) headerSize() (int, bool) {
	if len(e.id) > maxEnvelopeID || len(e.tags) > maxEnvelopeTags || len(e.eras) > maxEnvelopeEras {
		return 0, false
	}
	// The length of a string and the number of a partition take 3 bytes at most.
	n := envelopePrefix + len(e.id) + envelopeFixed + 5*binary.MaxVarintLen64 + 2*3
	for _, t := range e.tags {
		if len(t.Tag) > maxEnvelopeString || len(t.Token) > maxEnvelopeString {
			return 0, false
		}
		n += 2*3 + len(t.Tag) + len(t.Token)
	}
	for _, p := range e.eras {
		if p.Partition < 0 || p.Partition >= tier.MaxPartitions || len(p.Era) > maxEnvelopeString {
			return 0, false
		}
		n += 2*3 + len(p.Era)
	}
	return n, true
}

// appendCompressed appends the compressed payload, unless compression saves less than 10 %.
func appendCompressed(dst, payload []byte) ([]byte, bool) {
	if len(payload) < minCompress {
		return dst, false
	}
	at := len(dst)
	dst = slices.Grow(dst, 4+s2.MaxEncodedLen(len(payload)))[:at+4]
	block := len(s2.Encode(dst[len(dst):cap(dst)], payload)) // in place: there is room for it
	if 10*int64(4+block) > 9*int64(len(payload)) {
		return dst[:at], false
	}
	binary.LittleEndian.PutUint32(dst[at:], uint32(block))
	dst = dst[:at+4+block]
	if least := (len(payload) - ratioFree + maxRatio - 1) / maxRatio; 4+block < least {
		dst = append(dst, make([]byte, least-4-block)...)
	}
	return dst, true
}

func appendEnvelopeString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

func envelopeChecksum(data []byte) uint32 {
	return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
}

// decodeEnvelope is the reverse of encodeEnvelope. An empty field decodes as nil.
// Nothing in the result refers to data; its strings share one copy of the header.
// It fails with errVersion or errCorrupt, and allocates at most maxRatio times
// len(data) and ratioFree bytes, whatever data is.
func decodeEnvelope(data []byte) (envelope, error) { return decodeSealed(data, nil, nil) }

// decodeSealed is decodeEnvelope of an envelope that may be sealed. It also fails with the errors
// of [sealer.open].
func decodeSealed(data []byte, s *sealer, context []byte) (envelope, error) {
	if len(data) < envelopePrefix || data[0] != envelopeMagic {
		return envelope{}, errCorrupt
	}
	if data[1] != envelopeVersion {
		return envelope{}, errVersion // which may have its checksum elsewhere
	}
	fixed := envelopePrefix + int(data[2])
	if len(data) < fixed+envelopeFixed+envelopeSum {
		return envelope{}, errCorrupt
	}
	data, sum := data[:len(data)-envelopeSum], data[len(data)-envelopeSum:]
	if binary.LittleEndian.Uint32(sum) != envelopeChecksum(data) {
		return envelope{}, errCorrupt
	}
	flags, at := data[fixed], binary.LittleEndian.Uint32(data[fixed+1:])
	if flags&^envelopeFlags != 0 || at < uint32(fixed+envelopeFixed) || uint64(at) > uint64(len(data)) {
		return envelope{}, errCorrupt
	}

	header := string(data[:at])
	r := envelopeReader{rest: header[fixed+envelopeFixed:]}
	e := envelope{
		id:          header[envelopePrefix:fixed],
		born:        r.varint(),
		freshUntil:  r.varint(),
		staleUntil:  r.varint(),
		keepUntil:   r.varint(),
		loadTime:    time.Duration(r.varint()),
		provisional: flags&envelopeProvisional != 0,
	}
	if n := r.count(maxEnvelopeTags); n > 0 {
		e.tags = make([]tier.TagGeneration, n)
		for i := range e.tags {
			e.tags[i] = tier.TagGeneration{Tag: r.string(), Token: r.string()}
		}
	}
	if n := r.count(maxEnvelopeEras); n > 0 {
		e.eras = make([]tier.PartitionEra, n)
		for i := range e.eras {
			e.eras[i] = tier.PartitionEra{Partition: r.uvarint(tier.MaxPartitions - 1), Era: r.string()}
		}
	}
	if r.bad || r.rest != "" {
		return envelope{}, errCorrupt
	}

	payload, err := s.openPayload(data[at:], flags, func() []byte { return slices.Concat(context, data[:at]) })
	if err != nil {
		return envelope{}, err
	}
	if flags&envelopeCompressed == 0 {
		if len(payload) > maxDecoded {
			return envelope{}, errCorrupt
		}
		e.payload = append(e.payload, payload...)
		return e, nil
	}
	e.payload, err = decompress(payload)
	if err != nil {
		return envelope{}, err
	}
	return e, nil
}

// openPayload returns the payload of an envelope. It is a view of data if it is not sealed.
func (s *sealer) openPayload(data []byte, flags byte, context func() []byte) ([]byte, error) {
	switch sealed := flags&envelopeSealed != 0; {
	case !sealed && (s == nil || s.unsealed):
		return data, nil
	case !sealed:
		return nil, errUnsealed
	case len(data) == 0 || data[0] != sealMark:
		return nil, errCorrupt
	}
	return s.open(data, context())
}

// decompress is the reverse of appendCompressed.
func decompress(data []byte) ([]byte, error) {
	if len(data) < 4 {
		return nil, errCorrupt
	}
	block, n := data[4:], binary.LittleEndian.Uint32(data)
	if uint64(n) > uint64(len(block)) {
		return nil, errCorrupt
	}
	block = block[:n]
	size, err := s2.DecodedLen(block)
	if err != nil || size == 0 || size > maxDecoded || int64(size) > ratioFree+maxRatio*int64(len(data)) {
		return nil, errCorrupt
	}
	payload, err := s2.Decode(nil, block)
	if err != nil {
		return nil, errCorrupt
	}
	return payload, nil
}

// envelopeReader reads a header. After an error it returns zeros.
type envelopeReader struct {
	rest string
	bad  bool
}

func (r *envelopeReader) fail() {
	r.rest, r.bad = "", true
}

// number reads a uvarint. It is binary.Uvarint for a string.
func (r *envelopeReader) number() uint64 {
	var v uint64
	for i := range min(len(r.rest), binary.MaxVarintLen64) {
		b := r.rest[i]
		if i == binary.MaxVarintLen64-1 && b > 1 {
			break // more than 64 bits
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			r.rest = r.rest[i+1:]
			return v
		}
	}
	r.fail()
	return 0
}

func (r *envelopeReader) varint() int64 {
	v := r.number()
	return int64(v>>1) ^ -int64(v&1)
}

// uvarint reads a number that is at most limit.
func (r *envelopeReader) uvarint(limit int) int {
	v := r.number()
	if v > uint64(limit) {
		r.fail()
		return 0
	}
	return int(v)
}

// count reads the number of the following pairs. Each pair has at least 2 bytes, which bounds the
// allocation.
func (r *envelopeReader) count(limit int) int {
	n := r.uvarint(limit)
	if n > len(r.rest)/2 {
		r.fail()
		return 0
	}
	return n
}

func (r *envelopeReader) string() string {
	n := r.uvarint(maxEnvelopeString)
	if n > len(r.rest) {
		r.fail()
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}
