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

// JSON is the default Codec: encoding/json, with trailing bytes refused. NewMap
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
		return fmt.Errorf("larder: %d trailing bytes after the value", len(rest))
	}
	return nil
}
