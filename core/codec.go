package core

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/packed"
)

// Codec turns the values of a [Map] into bytes and back. It must be safe for concurrent
// use. An error of Marshal or Unmarshal makes a value one that is answered and not
// stored, or a miss; it never reaches a caller of Get.
type Codec interface {
	// Marshal encodes v, which has the map's type of value. Its result is copied.
	Marshal(v any) ([]byte, error)
	// Unmarshal decodes data into v, a pointer to a zero value. It must not keep data.
	Unmarshal(data []byte, v any) error
}

// JSON is the default [Codec]: encoding/json, with trailing bytes refused. [NewMap]
// refuses types of which it loses a part. A codec that embeds JSON is not checked.
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

// valueType is the type of a map's values: how they are made, encoded and copied. Values
// are boxed: a *V in an any.
type valueType struct {
	t       reflect.Type // V
	codec   Codec
	packed  *packed.Type        // nil: a hit decodes, or clones
	make    func() any          // boxes the zero value
	bare    func(box any) any   // returns a V, for codecs
	clone   func(box any) any   // nil: no MapOptions.Clone
	version func(box any) int64 // nil: no MapOptions.Version

	notFound notFounds
}

func valueTypeOf[V any](codec Codec, clone func(V) V, version func(V) int64) valueType {
	t := valueType{
		t: reflect.TypeFor[V](), codec: codec,
		make: func() any { return new(V) },
		bare: func(box any) any { return unboxed[V](box) },
	}
	if clone != nil {
		t.clone = func(box any) any {
			v := clone(unboxed[V](box))
			return &v
		}
	}
	if version != nil {
		t.version = func(box any) int64 { return version(unboxed[V](box)) }
	}
	return t
}

// checkType returns a *ConfigError if the codec is JSON and loses a part of the type.
func (t *valueType) checkType() error {
	if _, ok := t.codec.(jsonCodec); !ok {
		return nil // the codec is the caller's responsibility
	}
	return checkJSON(t.t)
}

// encode returns bytes that nothing else refers to.
func (t *valueType) encode(box any) ([]byte, error) {
	if _, ok := t.codec.(jsonCodec); ok {
		return t.codec.Marshal(box) // a pointer, so that its methods count
	}
	data, err := t.codec.Marshal(t.bare(box))
	return bytes.Clone(data), err // the codec may reuse its buffer, or return the value's own
}

// packs prepares to keep values packed, if JSON is the codec and the type allows it. A codec
// of the caller's own may decode what is no tree.
func (t *valueType) packs() {
	if _, ok := t.codec.(jsonCodec); ok && t.clone == nil {
		if p, ok := packed.Of(t.t); ok {
			t.packed = p
		}
	}
}

// stored returns a value in the form that hits read it from, and the bytes that it takes. box
// is what data decodes to; with MapOptions.Clone no caller has it. shared: a loader may renew
// the value, which then goes to the shared tier as it was encoded.
func (t *valueType) stored(box any, data []byte, shared bool) (value any, size int) {
	switch {
	case t.clone != nil:
		return kept{box, len(data)}, local.Footprint(box) + headBytes
	case t.packed != nil && (!shared || t.encodesTo(box, data)):
		if v, ok := t.packed.Pack(box); ok {
			return v, v.Size()
		}
	}
	return data, len(data) + headBytes
}

// headBytes is what a stored value takes in an interface beside its bytes, or its parts.
const headBytes = 24

// encodesTo reports whether a value encodes to data. The value that data decodes to need not:
// the methods of a type may be asymmetric, and another version of the app, with more fields,
// may have written data.
func (t *valueType) encodesTo(box any, data []byte) bool {
	again, err := t.encode(box)
	return err == nil && bytes.Equal(again, data)
}

// unpack boxes a packed value.
func (t *valueType) unpack(v packed.Value) any {
	box := t.make()
	t.packed.UnpackBox(v, box)
	return box
}

func (t *valueType) decode(data []byte) (any, error) {
	box := t.make()
	if err := t.codec.Unmarshal(data, box); err != nil {
		return nil, err
	}
	return box, nil
}

// mapCodec is how the shared tier keeps the values of a map: a byte for the kind of value,
// the validator with its length before it where there is one, and the bytes of the map's
// own codec.
type mapCodec struct {
	t       *valueType
	encoded []byte // the value of the fill, if it has just been encoded
}

const (
	absentValue    = 0
	encodedValue   = 1
	validatedValue = 2
	namedAbsent    = 4 // the text of the error follows, of MapOptions.NotFound
)

// Encode implements local.Codec.
func (c mapCodec) Encode(value any) (payload []byte, ok bool) {
	head := []byte{encodedValue}
	if v, ok := value.(validated); ok {
		head = binary.AppendUvarint([]byte{validatedValue}, uint64(len(v.validator)))
		head = append(head, v.validator...)
		value = v.value
	}
	if a, isAbsent := value.(absent); isAbsent {
		if a.as != nil {
			return append([]byte{namedAbsent}, a.as.is.Error()...), true
		}
		return []byte{absentValue}, true
	}
	if c.encoded != nil {
		return append(head, c.encoded...), true
	}
	switch v := value.(type) {
	case []byte:
		return append(head, v...), true
	case kept:
		data, err := c.t.encode(v.value)
		return append(head, data...), err == nil
	case packed.Value:
		data, err := c.t.encode(c.t.unpack(v))
		return append(head, data...), err == nil
	}
	return nil, false
}

// Decode implements local.Codec.
func (c mapCodec) Decode(payload []byte, _ int64) (value any, size int, ok bool) {
	if len(payload) > 1 && payload[0] == namedAbsent {
		as := c.t.notFound.byText(string(payload[1:]))
		return absent{as}, 0, as != nil // another version of the app may list other errors
	}
	validator, data, ok := splitPayload(payload)
	switch {
	case !ok:
		return nil, 0, false
	case data == nil:
		return absent{}, 0, true
	case c.t.clone == nil && c.t.packed == nil:
		return withValidator(data, validator), len(data) + headBytes + len(validator), true
	}
	box, err := c.t.decode(data)
	switch {
	case err == nil:
		value, size = c.t.stored(box, data, true)
	case c.t.clone != nil:
		return nil, 0, false
	default: // the caller finds it out as it reads the value
		value, size = data, len(data)+headBytes
	}
	return withValidator(value, validator), size + len(validator), true
}

// splitPayload returns the parts of a payload. data is nil for an absent value.
func splitPayload(payload []byte) (validator string, data []byte, ok bool) {
	if len(payload) == 0 {
		return "", nil, false
	}
	switch kind, rest := payload[0], payload[1:]; kind {
	case absentValue:
		return "", nil, len(rest) == 0
	case encodedValue:
		return "", rest, true
	case validatedValue:
		n, length := binary.Uvarint(rest)
		if length <= 0 || n == 0 || n > MaxValidatorBytes || n > uint64(len(rest)-length) {
			return "", nil, false
		}
		end := length + int(n)
		return string(rest[length:end]), rest[end:], true
	}
	return "", nil, false
}

// validated is a stored value with its validator.
type validated struct {
	value     any // []byte, kept or packed.Value
	validator string
}

func withValidator(value any, validator string) any {
	if validator == "" {
		return value
	}
	return validated{value, validator}
}

// The value of a miss has been through the codec, as the value of a hit has. So a type of
// which JSON always loses a part would lose it at once, and silently. NewMap refuses it, and
// names the part. A loss that depends on the value (NaN, invalid UTF-8, an integer
// beyond 2^53 in an interface, the monotonic part of a time) is found as it is stored.

// checkJSON returns a *ConfigError if JSON cannot keep all of a value of type t.
func checkJSON(t reflect.Type) error {
	w := jsonWalk{seen: make(map[jsonPlace]bool)}
	l := w.typ(t, "", true)
	if l == nil {
		return nil
	}
	return &ConfigError{t.String() + l.path, l.why, "what JSON keeps, a type that implements json.Marshaler and json.Unmarshaler, or a codec that keeps it (MapOptions.Codec)"}
}

// jsonLoss is a part of a type that JSON loses, and why.
type jsonLoss struct{ path, why string }

type jsonPlace struct {
	t    reflect.Type
	addr bool
}

// jsonWalk looks at a type as package encoding/json does.
type jsonWalk struct{ seen map[jsonPlace]bool }

//nolint:gochecknoglobals // constants
var (
	jsonMarshaler   = reflect.TypeFor[json.Marshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// marshals reports whether values of t say themselves how they are encoded. Methods of
// pointers count where the value is addressable.
func marshals(t reflect.Type, addr bool) bool {
	p := reflect.PointerTo(t)
	return t.Implements(jsonMarshaler) || t.Implements(textMarshaler) ||
		addr && (p.Implements(jsonMarshaler) || p.Implements(textMarshaler))
}

// unmarshals reports whether values of t say themselves how they are decoded.
func unmarshals(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return t.Implements(jsonUnmarshaler) || t.Implements(textUnmarshaler) || p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler)
}

// typ looks at values of t. addr: they are addressable where they are encoded.
func (w *jsonWalk) typ(t reflect.Type, path string, addr bool) *jsonLoss {
	if w.seen[jsonPlace{t, addr}] {
		return nil
	}
	w.seen[jsonPlace{t, addr}] = true
	if marshals(t, addr) && t.Kind() != reflect.Interface {
		if unmarshals(t) {
			return ofAnother(t, path)
		}
		return nil // whether it decodes can be told of a value only
	}
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return &jsonLoss{path, t.String() + ": JSON has no such values"}
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return &jsonLoss{path, t.String() + ": JSON decodes nothing into an interface with methods"}
		}
	case reflect.Pointer:
		return w.typ(t.Elem(), path, true)
	case reflect.Slice:
		return w.typ(t.Elem(), path+"[]", true)
	case reflect.Array:
		return w.typ(t.Elem(), path+"[]", addr)
	case reflect.Map:
		if !jsonKey(t.Key()) {
			return &jsonLoss{path, t.String() + ": JSON has no such keys"}
		}
		return w.typ(t.Elem(), path+"[]", false)
	case reflect.Struct:
		return w.fields(t, path, addr)
	}
	return nil
}

// jsonKey reports whether keys of type t can be encoded, and decoded.
func jsonKey(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return true
	}
	return t.Implements(textMarshaler) && reflect.PointerTo(t).Implements(textUnmarshaler)
}

// jsonField is a field of a struct, or of one that is embedded in it.
type jsonField struct {
	name   string // in JSON
	path   string
	t      reflect.Type
	depth  int
	tagged bool
	addr   bool
}

// fields looks at the fields of a struct.
func (w *jsonWalk) fields(t reflect.Type, path string, addr bool) *jsonLoss {
	list, lost := jsonFields(t, jsonField{path: path, addr: addr}, nil)
	if lost != nil {
		return lost
	}
	byName := make(map[string][]jsonField)
	for _, f := range list {
		byName[f.name] = append(byName[f.name], f)
	}
	for _, f := range list {
		if hidden := hiddenBy(f, byName[f.name]); hidden != "" {
			return &jsonLoss{f.path, fmt.Sprintf("called %q in JSON as %s is: JSON leaves it out", f.name, strings.TrimPrefix(hidden, "."))}
		}
		if l := w.typ(f.t, f.path, f.addr); l != nil {
			return l
		}
	}
	return nil
}

// hiddenBy returns the path of a field on account of which JSON leaves f out, "" if there
// is none: of those with one name the least deep counts, then the one whose tag says so,
// if there is one such.
func hiddenBy(f jsonField, same []jsonField) string {
	for _, other := range same {
		if other.path == f.path {
			continue
		}
		if other.depth < f.depth || other.depth == f.depth && (other.tagged || !f.tagged) {
			return other.path
		}
	}
	return ""
}

// jsonFields returns the fields of t that JSON may keep, those of embedded structs
// included, or the first that it does not.
func jsonFields(t reflect.Type, in jsonField, within []reflect.Type) (list []jsonField, lost *jsonLoss) {
	if slices.Contains(within, t) {
		return nil, nil
	}
	within = append(within[:len(within):len(within)], t)
	for i := range t.NumField() {
		sf := t.Field(i)
		if sf.Name == "_" || !hasContent(sf.Type) {
			continue
		}
		f := jsonField{path: in.path + "." + sf.Name, t: sf.Type, depth: in.depth, addr: in.addr}
		tag, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if why := leftOut(sf); why != "" {
			return nil, &jsonLoss{f.path, why}
		}
		f.name, f.tagged = sf.Name, validTag(tag)
		if f.tagged {
			f.name = tag
		}
		embedded := sf.Type
		if embedded.Kind() == reflect.Pointer && embedded.Name() == "" {
			embedded = embedded.Elem()
		}
		if !sf.Anonymous || f.tagged || embedded.Kind() != reflect.Struct {
			list = append(list, f)
			continue
		}
		f.depth++
		f.addr = f.addr || sf.Type.Kind() == reflect.Pointer
		more, lost := jsonFields(embedded, f, within)
		if lost != nil {
			return nil, lost
		}
		list = append(list, more...)
	}
	return list, nil
}

// leftOut says why JSON leaves a field out, "" if it does not.
func leftOut(sf reflect.StructField) string {
	t := sf.Type
	pointer := sf.Anonymous && t.Kind() == reflect.Pointer
	if pointer {
		t = t.Elem()
	}
	switch {
	case sf.Tag.Get("json") == "-":
		return `tagged json:"-": JSON leaves it out`
	case sf.IsExported():
		return ""
	case pointer && t.Kind() == reflect.Struct:
		return "an embedded pointer to an unexported struct: JSON cannot decode it"
	case sf.Anonymous && t.Kind() == reflect.Struct: // its exported fields are the outer one's
		return ""
	}
	return "unexported: JSON leaves it out"
}

// hasContent reports whether a value of type t has anything to keep. A lock has not.
func hasContent(t reflect.Type) bool {
	if t.PkgPath() == "sync" {
		switch t.Name() {
		case "Mutex", "RWMutex", "Once", "WaitGroup", "Pool":
			return false
		}
	}
	return t.Size() > 0
}

// validTag reports whether encoding/json takes a name of a tag.
func validTag(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return strings.ContainsRune("\"\\,'`", r) || r < ' '
	})
}

// ofAnother finds a struct whose methods are those of an embedded field: of the other
// fields JSON has nothing.
func ofAnother(t reflect.Type, path string) *jsonLoss {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	from, other := "", ""
	for i := range t.NumField() {
		switch sf := t.Field(i); {
		case sf.Anonymous && marshals(sf.Type, true):
			from = sf.Name
		case other == "" && sf.IsExported() && hasContent(sf.Type):
			other = sf.Name
		}
	}
	if from == "" || other == "" || !sameJSON(t) {
		return nil
	}
	return &jsonLoss{path + "." + other, fmt.Sprintf("beside the embedded %s, whose methods encode the whole: JSON leaves it out", from)}
}

// sameJSON reports whether values of a struct encode alike, whatever its fields hold that
// are not embedded.
func sameJSON(t reflect.Type) (same bool) {
	defer func() {
		if recover() != nil { // a method that does not expect such a value
			same = false
		}
	}()
	one, two := reflect.New(t), reflect.New(t)
	for i := range t.NumField() {
		sf := t.Field(i)
		if !sf.IsExported() {
			continue
		}
		for _, v := range []reflect.Value{one, two} {
			if f := v.Elem().Field(i); sf.Anonymous && f.Kind() == reflect.Pointer {
				f.Set(reflect.New(f.Type().Elem()))
			}
		}
		if !sf.Anonymous {
			fill(two.Elem().Field(i))
		}
	}
	a, err := json.Marshal(one.Interface())
	b, err2 := json.Marshal(two.Interface())
	return err == nil && err2 == nil && bytes.Equal(a, b)
}

// fill puts something into v that is not the zero value, if that is simple.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	}
}
