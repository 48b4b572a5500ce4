package redisstore

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/larderhq/larder/core/internal/tier"
)

// Sealing encrypts the values that the tier stores in Redis, with AES-256-GCM (NIST SP
// 800-38D): entries, queued changes of write-behind and dead letters. A value opens only
// under the key, the tags and the times that it was sealed with, so that a person who can
// write to Redis can neither read nor replace it, nor extend its life. Keys, tags, the
// log of invalidations and the lengths of values remain readable.
//
// A value that does not open is a miss. A queued change that does not open is tried like one
// that does not decode: another instance may have the key, and after MaxAttempts it is a dead
// letter, which Replay of core.WriteBehind queues again. The log reports each cause once.
type Sealing struct {
	// Keys are the secrets, 1 to 16. The first one seals; all of them open. To change the
	// secret without misses, deploy three times: append the new key, move it to the front,
	// and remove the old one when the longest TTL has passed and the queues are empty.
	Keys []SealingKey
	// AcceptUnsealed makes the tier read values that are not sealed, and thus trust everybody
	// who can write to Redis. It is for the deployment that introduces Sealing: without it,
	// earlier entries are misses, and earlier queued changes become dead letters. Default
	// false.
	AcceptUnsealed bool
}

// SealingKey is a secret and its name.
type SealingKey struct {
	// ID names the secret, in 1 to 32 letters, digits, hyphens, dots and underscores. It is
	// stored beside each value, unencrypted.
	ID string
	// Secret has 32 random bytes, as crypto/rand creates them. A password is no secret of
	// this kind.
	Secret []byte
}

const (
	maxSealingKeys  = 16
	maxSealingKeyID = 32
	secretBytes     = 32
	saltBytes       = 16

	// sealsPerSalt is the number of values that one derived key seals. With random nonces of 96
	// bits, the probability that any of 2^28 values share one is below 2^-40.
	sealsPerSalt = 1 << 28
	// maxDerived is the number of derived keys that are remembered. An instance seals with one,
	// so that they are as many as the instances that have sealed what is still stored.
	maxDerived = 1024
)

// sealMark begins a sealed payload. The record of a queued change begins with its version,
// which is never this byte.
//
//	1 byte   mark
//	1 byte   length of the id of the key
//	         id
//	16 bytes salt, from which and from the secret the key is derived (HKDF, RFC 5869)
//	12 bytes nonce
//	         ciphertext, and its tag of 16 bytes
const sealMark = 0xe8

var (
	errUnsealed   = errors.New("a stored value is not sealed")
	errNoSealing  = errors.New("a stored value is sealed, and the tier has no Sealing")
	errSealBroken = errors.New("a stored value does not open: it was changed, or copied from another key")
)

// unknownSealError is the error for a value that was sealed with a key that is not configured.
type unknownSealError struct{ id string }

func (e *unknownSealError) Error() string {
	return fmt.Sprintf("a stored value is sealed with the key %q, which is not among Sealing.Keys", e.id)
}

// sealer seals and opens payloads. It is safe for concurrent use.
type sealer struct {
	keys     []SealingKey
	unsealed bool // accepted

	mu      sync.Mutex
	salt    [saltBytes]byte // of the key that seals
	sealing cipher.AEAD
	left    int // how many values it still seals
	derived map[derivedName]cipher.AEAD
}

type derivedName struct {
	key  int
	salt [saltBytes]byte
}

func newSealer(s Sealing) (*sealer, error) {
	if n := len(s.Keys); n < 1 || n > maxSealingKeys {
		return nil, fmt.Errorf("%w: Sealing.Keys: %d keys; 1 to %d are allowed", tier.ErrUnusable, n, maxSealingKeys)
	}
	keys := slices.Clone(s.Keys)
	for i, k := range keys {
		switch {
		case !validKeyID(k.ID):
			return nil, fmt.Errorf("%w: Sealing.Keys[%d].ID: %q; 1 to %d letters, digits, hyphens, dots and underscores are allowed",
				tier.ErrUnusable, i, k.ID, maxSealingKeyID)
		case len(k.Secret) != secretBytes:
			return nil, fmt.Errorf("%w: Sealing.Keys[%d].Secret: %d bytes; %d are required", tier.ErrUnusable, i, len(k.Secret), secretBytes)
		case slices.IndexFunc(keys, func(o SealingKey) bool { return o.ID == k.ID }) != i:
			return nil, fmt.Errorf("%w: Sealing.Keys[%d].ID: %q is the ID of an earlier key", tier.ErrUnusable, i, k.ID)
		}
		keys[i].Secret = bytes.Clone(k.Secret)
	}
	seals := &sealer{keys: keys, unsealed: s.AcceptUnsealed, derived: make(map[derivedName]cipher.AEAD)}
	if err := seals.renew(); err != nil {
		return nil, fmt.Errorf("%w: Sealing: %w", tier.ErrUnusable, err)
	}
	return seals, nil
}

func validKeyID(id string) bool {
	for i := range len(id) {
		c := id[i]
		lower := c | 0x20
		if (lower < 'a' || lower > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= maxSealingKeyID
}

// seal appends plain, sealed under a context, to dst. plain must not overlap the spare capacity of dst.
func (s *sealer) seal(dst, plain, context []byte) []byte {
	aead, salt := s.forSealing()
	id := s.keys[0].ID
	dst = slices.Grow(dst, s.overhead()+len(plain))
	dst = append(dst, sealMark, byte(len(id)))
	dst = append(dst, id...)
	dst = append(dst, salt[:]...)
	return aead.Seal(dst, nil, plain, context)
}

// overhead is the difference in length between a sealed payload and its plain text.
func (s *sealer) overhead() int {
	const nonce, tag = 12, 16
	return 2 + len(s.keys[0].ID) + saltBytes + nonce + tag
}

// forSealing returns the key with which the next value is sealed, and its salt.
func (s *sealer) forSealing() (cipher.AEAD, [saltBytes]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 {
		_ = s.renew() // it has succeeded in newSealer; otherwise the last key goes on
	}
	s.left--
	return s.sealing, s.salt
}

// renew derives the next key that seals. The caller holds mu.
func (s *sealer) renew() error {
	var salt [saltBytes]byte
	_, _ = rand.Read(salt[:]) // never fails
	s.left = sealsPerSalt
	aead, err := s.derive(derivedName{0, salt})
	if err == nil {
		s.sealing, s.salt = aead, salt
	}
	return err
}

// derive derives a key. The caller holds mu.
func (s *sealer) derive(name derivedName) (cipher.AEAD, error) {
	if aead, ok := s.derived[name]; ok {
		return aead, nil
	}
	secret, err := hkdf.Key(sha256.New, s.keys[name.key].Secret, name.salt[:], "larder sealed value", secretBytes)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	if len(s.derived) >= maxDerived { // rare: the loss of all costs one derivation each
		clear(s.derived)
	}
	s.derived[name] = aead
	return aead, nil
}

// open returns the plain text of a payload, which does not refer to it. A nil sealer returns
// unsealed payloads.
func (s *sealer) open(payload, context []byte) ([]byte, error) {
	sealed := len(payload) > 0 && payload[0] == sealMark
	switch {
	case !sealed && (s == nil || s.unsealed):
		return bytes.Clone(payload), nil
	case !sealed:
		return nil, errUnsealed
	case s == nil:
		return nil, errNoSealing
	}
	rest := payload[1:]
	if len(rest) == 0 || len(rest) < 1+int(rest[0])+saltBytes {
		return nil, errSealBroken
	}
	id, rest := rest[1:1+rest[0]], rest[1+rest[0]:]
	key := slices.IndexFunc(s.keys, func(k SealingKey) bool { return k.ID == string(id) })
	if key < 0 {
		if !validKeyID(string(id)) {
			return nil, errSealBroken
		}
		return nil, &unknownSealError{string(id)}
	}
	name := derivedName{key: key, salt: [saltBytes]byte(rest)}
	s.mu.Lock()
	aead, err := s.derive(name)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, rest[saltBytes:], context)
	if err != nil {
		return nil, errSealBroken
	}
	return plain, nil
}

// sealContext is the context of a sealed payload: what it is, and where it is stored. Lengths
// before the parts keep two lists from the same bytes.
func sealContext(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

// entryContext is the context of the entry of a key, without its header.
func (s *session) entryContext(key string) []byte {
	return sealContext("entry", s.names.namespace, s.names.version, key)
}

// sealChange returns the payload of a queued change as it is stored.
func (s *session) sealChange(queue, key string, payload []byte) []byte {
	if s.sealer == nil {
		return payload
	}
	return s.sealer.seal(nil, payload, sealContext("change", s.names.namespace, queue, key))
}

// openChange replaces the payload of a queued change by its plain text. A payload that does not
// open becomes empty, which is no record of a change: it is not lost, and not applied.
func (s *session) openChange(queue string, q *tier.Queued) {
	plain, err := s.sealer.open(q.Payload, sealContext("change", s.names.namespace, queue, q.Key))
	if err != nil {
		s.notOpened(err)
		plain = nil
	}
	q.Payload = plain
}

// notOpened reports a value that does not open.
func (s *session) notOpened(err error) {
	report := s.nodes.refusals.report.Load()
	if report == nil {
		return
	}
	kind := err.Error()
	if unknown := (*unknownSealError)(nil); errors.As(err, &unknown) {
		kind = "sealed with another key"
	}
	(*report)(&tier.RefusalError{Kind: kind, Err: fmt.Errorf("redisstore: %w", err)})
}
