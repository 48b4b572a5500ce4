package redisstore

import (
	"strconv"
	"strings"

	"github.com/larderhq/larder/core/internal/tier"
)

// record is the queued change of a key, as stored in the hash of a partition:
// version:first:attempts:nonce of the call that wrote it:length of the queue's name: and then that
// name and the payload. lua/record.lua reads and writes it.
type record struct {
	version, first int64
	attempts       int
	by             string
	queue          string
	payload        string
}

// maxVersion is the largest number that is exact in Lua.
const maxVersion = 1 << 53

// parseRecord parses a record. It accepts exactly the texts that the Lua code accepts.
func parseRecord(text string) (r record, ok bool) {
	var version, first, attempts, length string
	rest := text
	for _, field := range []*string{&version, &first, &attempts, &r.by, &length} {
		if *field, rest, ok = strings.Cut(rest, ":"); !ok {
			return record{}, false
		}
	}
	var numbers [4]int64
	for i, digits := range []string{version, first, attempts, length} {
		if numbers[i], ok = number(digits); !ok {
			return record{}, false
		}
	}
	for i := range len(r.by) {
		if c := r.by[i] | 0x20; (c < 'a' || c > 'z') && (r.by[i] < '0' || r.by[i] > '9') && r.by[i] != '-' && r.by[i] != '_' {
			return record{}, false
		}
	}
	n := numbers[3]
	if n >= int64(len(rest)) || numbers[2] >= 1<<31 {
		return record{}, false
	}
	r.version, r.first, r.attempts = numbers[0], numbers[1], int(numbers[2])
	r.queue, r.payload = rest[:n], rest[n:]
	return r, true
}

// number parses digits.
func number(digits string) (int64, bool) {
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil && n < maxVersion
}

// queued returns the record as the queued change of a key. The caller owns its content.
func (r *record) queued(key string) tier.Queued {
	return tier.Queued{
		Key: key, Version: r.version, First: r.first, Attempts: r.attempts, Payload: []byte(r.payload),
	}
}
