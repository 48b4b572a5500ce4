package httpcache

import (
	"bufio"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Writer is the http.ResponseWriter that handlers write to as their answer is
// captured. It holds back what its Capture wants held back, and passes on the
// rest as it comes.
type Writer struct {
	w       http.ResponseWriter
	c       *Capture
	before  http.Header // what outer middleware had set
	final   http.Header // as it was when it became final, while it is held back
	status  int         // 0 until the header is final
	state   writerState
	buf     []byte
	written int64 // bytes of content the handler has written
	stated  int64 // its Content-Length, or -1
	last    int   // in state tailing: the byte held back, or -1
}

type writerState uint8

const (
	undecided writerState = iota // no final header yet
	holding                      // header and content are held back
	tailing                      // all but the last byte is passed on
	passing                      // everything is
	begun                        // the header of what was held back is sent, its content is to come
	hijacked                     // the connection is the handler's
	ended                        // released, replied to or discarded
)

var (
	_ http.ResponseWriter = (*Writer)(nil)
	_ http.Flusher        = (*Writer)(nil)
	_ http.Hijacker       = (*Writer)(nil)
	_ http.Pusher         = (*Writer)(nil)
	_ io.ReaderFrom       = (*Writer)(nil)
	_ io.StringWriter     = (*Writer)(nil)
)

// NewWriter returns a writer that captures for c what would go to w.
func NewWriter(w http.ResponseWriter, c *Capture) *Writer {
	return &Writer{w: w, c: c, before: w.Header().Clone(), last: -1}
}

// Header implements http.ResponseWriter. It is the header of the writer behind:
// handlers see what outer middleware has set.
func (w *Writer) Header() http.Header { return w.w.Header() }

// Unwrap gives http.ResponseController the writer behind, for deadlines.
func (w *Writer) Unwrap() http.ResponseWriter { return w.w }

// WriteHeader implements http.ResponseWriter.
func (w *Writer) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		if w.state == undecided {
			w.w.WriteHeader(status)
		}
		return
	}
	if w.status != 0 || w.state == hijacked {
		w.Abort(status)
		return
	}
	w.status, w.stated = status, -1
	w.final = w.w.Header().Clone()
	if s := w.final.Get("Content-Length"); s != "" {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
			w.stated = n
		}
	}
	hold, add := w.c.Head(status, stdHeader{w.final, w.before, canonical(w.final)})
	if hold && status != http.StatusSwitchingProtocols {
		w.state = holding
		return
	}
	w.state = passing
	w.sendHeader(add)
}

// Abort reports that the handler tries to answer another status after the header is
// final: a template has broken half-way, and http.Error follows.
func (w *Writer) Abort(status int) {
	if w.state == holding && status != w.status {
		w.c.AbortStatus = status
	}
}

// Write implements http.ResponseWriter.
func (w *Writer) Write(p []byte) (int, error) {
	if !w.start() {
		return 0, w.refuse()
	}
	return w.content(p, w.w.Write)
}

// WriteString implements io.StringWriter.
func (w *Writer) WriteString(s string) (int, error) {
	if w.state == passing {
		return io.WriteString(w.w, s)
	}
	return w.Write([]byte(s))
}

// ReadFrom implements io.ReaderFrom. Passing, it leaves the copying to the writer
// behind, which may know a faster way.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	if w.state == passing {
		return io.Copy(w.w, r)
	}
	return io.Copy(struct{ io.Writer }{w}, r)
}

// start makes the header final before content, as net/http does.
func (w *Writer) start() bool {
	if w.status == 0 && w.state == undecided {
		w.WriteHeader(http.StatusOK)
	}
	return w.state != hijacked && w.state != ended && w.state != begun && (w.state == passing || bodyAllowed(w.status))
}

func (w *Writer) refuse() error {
	switch w.state {
	case hijacked:
		return http.ErrHijacked
	case begun, ended:
		return http.ErrHandlerTimeout
	default:
		return http.ErrBodyNotAllowed
	}
}

func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

func (w *Writer) content(p []byte, write func([]byte) (int, error)) (int, error) {
	if w.state == passing {
		return write(p)
	}
	w.written += int64(len(p))
	if w.stated >= 0 && w.written > w.stated {
		w.Abort(http.StatusInternalServerError)
		return 0, http.ErrContentLength
	}
	if w.state == tailing {
		return w.tail(p)
	}
	if w.c.NoBody { // the server takes type and length from its beginning; the rest is not needed
		w.buf = append(w.buf, p[:min(len(p), w.c.Limit-len(w.buf))]...)
		return len(p), nil
	}
	if len(w.buf)+len(p) <= w.c.Limit {
		if w.buf == nil && w.stated > 0 {
			w.buf = make([]byte, 0, min(w.stated, int64(w.c.Limit)))
		}
		w.buf = append(w.buf, p...)
		return len(p), nil
	}
	if w.c.Tail && !w.streams() {
		w.startTail()
		return w.tail(p)
	}
	w.passOn(Oversized)
	return write(p)
}

// streams reports whether the answer to a write is a stream of records that its client
// takes one by one. Its end is not its last byte but the end of the connection or of the
// chunks, which the server sends when the handlers have returned.
func (w *Writer) streams() bool {
	if w.stated >= 0 {
		return false
	}
	kind, _, _ := strings.Cut(w.final.Get("Content-Type"), ";")
	return streamed[strings.ToLower(strings.TrimSpace(kind))]
}

// streamed are the media types of such streams.
var streamed = map[string]bool{ //nolint:gochecknoglobals // a constant
	"text/event-stream": true, "multipart/x-mixed-replace": true, "application/stream+json": true,
	"application/x-ndjson": true, "application/ndjson": true, "application/jsonl": true, "application/x-jsonlines": true,
	"application/jsonlines": true, "application/json-seq": true,
	"application/grpc-web": true, "application/grpc-web+proto": true, "application/grpc-web-text": true,
	"application/connect+json": true, "application/connect+proto": true,
}

// passOn sends what has been held back and stops holding back.
func (w *Writer) passOn(reason string) {
	w.state = passing
	w.sendHeader(w.c.Pass(reason))
	if len(w.buf) > 0 {
		_, _ = w.w.Write(w.buf) // the next write meets the same error
	}
	w.buf = nil
}

// sendHeader sends the header as it was when it became final, with fields added:
// as in net/http, what the handler sets later is too late, but for trailers.
func (w *Writer) sendHeader(add []Field) {
	h := w.w.Header()
	var late http.Header
	for name, values := range h {
		if _, ok := w.final[name]; ok {
			continue
		}
		if late == nil {
			late = make(http.Header)
		}
		late[name] = values
		delete(h, name)
	}
	maps.Copy(h, w.final)
	setFields(h, add)
	w.w.WriteHeader(w.status)
	maps.Copy(h, late)
}

// startTail sends what has been held back, but for its last byte.
func (w *Writer) startTail() {
	w.state = tailing
	w.sendHeader(w.c.always)
	held := w.buf
	w.buf = nil
	_, _ = w.tail(held) // the next write meets the same error
}

// tail passes content on and keeps the last byte.
func (w *Writer) tail(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if w.last >= 0 {
		if _, err := w.w.Write([]byte{byte(w.last)}); err != nil {
			return 0, err
		}
	}
	n := len(p) - 1
	w.last = int(p[n])
	if n > 0 {
		if m, err := w.w.Write(p[:n]); err != nil {
			return m, err
		}
	}
	return len(p), nil
}

// Flush implements http.Flusher.
func (w *Writer) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController calls. A capture for the store ends
// here: flushed content is meant to be seen at once.
func (w *Writer) FlushError() error {
	if w.state == undecided {
		w.WriteHeader(http.StatusOK)
	}
	if w.state == holding {
		switch {
		case w.c.Conditions != nil && w.status == http.StatusNotModified:
			return nil // it is not for the client
		case w.c.Tail:
			if !bodyAllowed(w.status) || w.c.NoBody || w.stated == 0 {
				return nil // the header is all there is: it waits for the end
			}
			if w.streams() {
				w.passOn(Streamed)
			} else {
				w.startTail()
			}
		default:
			w.passOn(Streamed)
		}
	}
	if w.state == ended {
		return nil
	}
	return http.NewResponseController(w.w).Flush()
}

// Hijack implements http.Hijacker.
func (w *Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.w).Hijack()
	if err == nil {
		w.c.Pass(Streamed)
		w.state, w.buf = hijacked, nil
	}
	return conn, rw, err
}

// Push implements http.Pusher.
func (w *Writer) Push(target string, opts *http.PushOptions) error {
	if p, ok := behind[http.Pusher](w.w); ok {
		return p.Push(target, opts)
	}
	return http.ErrNotSupported
}

// CloseNotify implements http.CloseNotifier, which Gin's streams insist on.
func (w *Writer) CloseNotify() <-chan bool {
	if n, ok := behind[interface{ CloseNotify() <-chan bool }](w.w); ok {
		return n.CloseNotify()
	}
	return nil
}

// behind returns the first writer from w on that can do what T says.
func behind[T any](w http.ResponseWriter) (can T, ok bool) {
	for {
		if can, ok = w.(T); ok {
			return can, true
		}
		u, wraps := w.(interface{ Unwrap() http.ResponseWriter })
		if !wraps {
			return can, false
		}
		w = u.Unwrap()
	}
}

// Answered reports whether the handler has answered anything.
func (w *Writer) Answered() bool { return w.status != 0 || w.state == hijacked }

// Size returns how many bytes of content have been written.
func (w *Writer) Size() int64 { return w.written }

// Finish fills in the capture when the handler has returned. A handler that
// wrote nothing has answered with what implicit is, unless that is 0.
func (w *Writer) Finish(implicit int) {
	if w.state == undecided && implicit != 0 {
		w.WriteHeader(implicit)
	}
	if w.state == holding && !w.c.Tail {
		for name := range w.w.Header() {
			if strings.HasPrefix(name, http.TrailerPrefix) {
				w.passOn(Streamed)
				break
			}
		}
	}
	if w.state == holding {
		w.c.Held = true
		if cap(w.buf)-len(w.buf) > len(w.buf)/8 { // what is kept should not keep the slack
			w.buf = slices.Clone(w.buf)
		}
		w.c.Body = slices.Clip(w.buf)
		// The type that net/http would tell from what is written: hits need it as well.
		_, typed := w.final["Content-Type"]
		_, encoded := AddedValues(w.final["Content-Encoding"], w.before["Content-Encoding"])
		if !typed && len(w.buf) > 0 && len(encoded) == 0 {
			w.final.Set("Content-Type", http.DetectContentType(w.buf))
		}
	}
}

// Retract takes back an answer that is held back, and leaves the header as h.
func (w *Writer) Retract(h http.Header) {
	if w.state != holding && w.state != undecided {
		return
	}
	now := w.w.Header()
	clear(now)
	maps.Copy(now, h)
	w.state, w.status, w.final, w.buf, w.written = undecided, 0, nil, nil, 0
	w.c.Retract()
}

// Abandon ends the capture in place of Finish when the handler has panicked. The held answer
// is dropped, header fields included: middleware that recovers outside finds nothing sent and
// nothing set.
func (w *Writer) Abandon() {
	if w.state == holding {
		w.discard()
	}
}

// release sends what is held back.
func (w *Writer) release(fields []Field) {
	switch w.state {
	case undecided:
		setFields(w.w.Header(), fields)
	case holding, begun:
		if w.state == holding {
			w.sendHeld(fields)
		}
		if len(w.buf) > 0 {
			_, _ = w.w.Write(w.buf) // a client that has gone is no error of the cache
		}
		w.buf, w.state = nil, ended
	case tailing:
		if w.last >= 0 {
			_, _ = w.w.Write([]byte{byte(w.last)}) // as above
		}
		w.state = ended
	}
}

// ahead is how much content is sent with a header that is sent ahead: writers that
// hold their header back decide by that. Servers keep so little in their buffers, so
// that no client is waited for.
const ahead = 1 << 10

// releaseHeader sends the header of what is held back, and the beginning of its
// content.
func (w *Writer) releaseHeader(fields []Field) {
	if w.state == holding {
		w.sendHeld(fields)
		w.begin()
	}
}

// sendHeld sends the header of what is held back whole.
func (w *Writer) sendHeld(fields []Field) {
	if w.stated < 0 && !w.c.Tail && w.c.AbortStatus == 0 && len(canonical(w.before)["Content-Encoding"]) == 0 {
		stateLength(w.final, len(w.buf))
	}
	w.sendHeader(fields)
}

// replyHeader sends the header of an answer in place of what is held back, and the
// beginning of its content.
func (w *Writer) replyHeader(a Answer) {
	w.discard()
	setFields(w.w.Header(), a.Fields, a.Extra)
	w.w.WriteHeader(a.Status)
	if !a.NoBody {
		w.buf = a.Body[:len(a.Body):len(a.Body)]
	}
	w.begin()
}

func (w *Writer) begin() {
	w.state = begun
	if n := min(len(w.buf), ahead); n > 0 {
		_, _ = w.w.Write(w.buf[:n]) // a client that has gone is no error of the cache
		w.buf = w.buf[n:]
	}
}

// discard drops what is held back, header fields included.
func (w *Writer) discard() {
	if w.state == holding || w.state == undecided {
		h := w.w.Header()
		clear(h)
		for name, values := range w.before {
			h[name] = values
		}
		w.buf, w.state = nil, ended
	}
}

// stdHeader is a Header of net/http. Names in canonical are canonical even where
// the handler wrote others past Header.Set.
type stdHeader struct{ final, before, canonical http.Header }

// Values implements Header.
func (h stdHeader) Values(name string) []string { return h.canonical[name] }

// Before returns what outer middleware had set of a field.
func (h stdHeader) Before(name string) []string { return canonical(h.before)[name] }

// canonical returns h itself if all its names are.
func canonical(h http.Header) http.Header {
	for name := range h {
		if http.CanonicalHeaderKey(name) == name {
			continue
		}
		c := make(http.Header, len(h))
		for name, values := range h {
			name = http.CanonicalHeaderKey(name)
			c[name] = append(c[name], values...)
		}
		return c
	}
	return h
}

// Own implements Header: what the handler added behind what was there is
// appended, what it replaced is set. Names are canonical: so they are compared.
func (h stdHeader) Own() []Field {
	fields := make([]Field, 0, len(h.final))
	before := canonical(h.before)
	for name, values := range h.canonical {
		f := Field{Name: name, Values: values}
		if old, there := before[name]; there && len(old) == 0 && len(values) == 0 {
			continue // suppressed, as it was
		}
		if added, rest := AddedValues(values, before[name]); added {
			if len(rest) == 0 {
				continue
			}
			f.Mode, f.Values = Append, rest
		}
		fields = append(fields, f)
	}
	for name := range before {
		if _, there := h.canonical[name]; !there {
			fields = append(fields, Field{Name: name, Mode: Remove})
		}
	}
	slices.SortFunc(fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return fields
}
