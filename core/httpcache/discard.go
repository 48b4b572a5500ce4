package httpcache

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// DiscardWriter is an http.ResponseWriter that discards the answer, for background loads.
// It has the methods of net/http's own writer, and they succeed as they do with a client,
// except Hijack: a handler that checks their errors behaves as it does in the foreground.
type DiscardWriter struct {
	header http.Header
	status atomic.Int32
}

var (
	_ http.ResponseWriter = (*DiscardWriter)(nil)
	_ http.Flusher        = (*DiscardWriter)(nil)
	_ http.Hijacker       = (*DiscardWriter)(nil)
	_ io.ReaderFrom       = (*DiscardWriter)(nil)
	_ io.StringWriter     = (*DiscardWriter)(nil)
)

// NewDiscardWriter returns a DiscardWriter.
func NewDiscardWriter() *DiscardWriter { return &DiscardWriter{header: make(http.Header)} }

// ServeDiscarding calls a handler with a DiscardWriter, which it returns. As a server does,
// it removes the files of an upload afterwards.
func ServeDiscarding(h http.Handler, r *http.Request) *DiscardWriter {
	n := NewDiscardWriter()
	defer func() {
		if r.MultipartForm != nil {
			_ = r.MultipartForm.RemoveAll() // as a server: an error has no remedy
		}
	}()
	h.ServeHTTP(n, r)
	return n
}

// Status returns the status of the answer.
func (n *DiscardWriter) Status() int {
	n.status.CompareAndSwap(0, http.StatusOK)
	return int(n.status.Load())
}

// Header implements http.ResponseWriter.
func (n *DiscardWriter) Header() http.Header { return n.header }

// WriteHeader implements http.ResponseWriter.
func (n *DiscardWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		n.status.CompareAndSwap(0, int32(min(status, 999))) //nolint:gosec // it fits
	}
}

// Write implements http.ResponseWriter.
func (n *DiscardWriter) Write(p []byte) (int, error) {
	n.WriteHeader(http.StatusOK)
	return len(p), nil
}

// WriteString implements io.StringWriter.
func (n *DiscardWriter) WriteString(s string) (int, error) {
	n.WriteHeader(http.StatusOK)
	return len(s), nil
}

// ReadFrom implements io.ReaderFrom.
func (n *DiscardWriter) ReadFrom(r io.Reader) (int64, error) {
	n.WriteHeader(http.StatusOK)
	return io.Copy(io.Discard, r)
}

// Flush implements http.Flusher.
func (n *DiscardWriter) Flush() { n.WriteHeader(http.StatusOK) }

// FlushError is what http.ResponseController calls.
func (n *DiscardWriter) FlushError() error {
	n.Flush()
	return nil
}

// SetReadDeadline, SetWriteDeadline and EnableFullDuplex are what
// http.ResponseController calls. There is nothing that could take long.
func (n *DiscardWriter) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is as SetReadDeadline.
func (n *DiscardWriter) SetWriteDeadline(time.Time) error { return nil }

// EnableFullDuplex is as SetReadDeadline.
func (n *DiscardWriter) EnableFullDuplex() error { return nil }

// Hijack implements http.Hijacker: there is no connection.
func (n *DiscardWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, http.ErrNotSupported
}

// CloseNotify implements http.CloseNotifier, which Gin's streams insist on: there
// is no client that could go away.
func (n *DiscardWriter) CloseNotify() <-chan bool { return nil }
