package core

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Codec turns the values of a Map into bytes and back. It must be safe for
// concurrent use, and Unmarshal must not keep data. What Marshal returns is copied.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// JSON is the default Codec: encoding/json, with bytes behind the value refused. NewMap
// refuses types of which it loses a part; a codec that embeds it is not looked at.
var JSON Codec = jsonCodec{} //nolint:gochecknoglobals // stateless

type jsonCodec struct{}

func (jsonCodec) Marshal(v any) ([]byte, error) { return json.Marshal(v) }

func (jsonCodec) Unmarshal(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(v); err != nil {
		return err
	}
	if rest := data[d.InputOffset():]; len(bytes.TrimSpace(rest)) > 0 {
		return fmt.Errorf("larder: %d bytes behind the value", len(rest))
	}
	return nil
}

// MapOption changes how a Map keeps its values.
type MapOption struct {
	codec   Codec
	clone   any
	version any
}

// WithCodec replaces JSON.
func WithCodec(c Codec) MapOption { return MapOption{codec: c} }

// WithClone keeps values in process as they are and gives each caller a copy
// made by clone, which must copy everything a caller could change. It saves the
// decoding per hit. With a shared tier what is kept has been through the codec once.
func WithClone[V any](clone func(V) V) MapOption { return MapOption{clone: clone} }

// WithVersion is for values to which the database gives a version that grows with
// each change of the id: a row's version, a counter, not a time. version returns
// it; 0 or less is unknown, and then nothing is compared.
//
// An older value never takes the place of a newer one that is cached and may still
// be answered. A load that reads an older one, from a replica that lags for one,
// is answered with what is there, which expires when it would have. A Put or Write
// of an older one stores nothing, and invalidates as ever; to find that out, they
// read what is there first, with a shared tier in one call more.
//
// What is not cached is not known: invalidated, expired, evicted. So it is still
// for the caller to order his Puts, and "not found" has no version. Versions that
// begin anew, when an id is deleted and created again, do no harm if the deletion
// is announced; if not, the former value stays until it expires. Since they may,
// versions never make a Write store what it would not without: of writers who
// overlap, none does.
func WithVersion[V any](version func(V) int64) MapOption { return MapOption{version: version} }
