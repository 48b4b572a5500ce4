package core

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Codec turns the values of a Map into bytes and back. It must be safe for
// concurrent use, and Unmarshal must not keep data.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// JSON is the default Codec: encoding/json, with bytes behind the value refused.
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
	codec Codec
	clone any
}

// WithCodec replaces JSON.
func WithCodec(c Codec) MapOption { return MapOption{codec: c} }

// WithClone keeps values in process as they are and gives each caller a copy
// made by clone, which must copy everything a caller could change. It saves the
// decoding per hit.
func WithClone[V any](clone func(V) V) MapOption { return MapOption{clone: clone} }
