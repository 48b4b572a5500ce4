package gincache

import (
	"bufio"
	"net"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/larderhq/larder/core/httpcache"
)

// out is the gin.ResponseWriter that an answer goes out through.
type out struct {
	gin.ResponseWriter
	// final says that a status is sent at once. Otherwise it is recorded, and sent
	// with the content or by Gin at the end, as the handler would have it.
	final bool
}

// WriteHeader implements http.ResponseWriter.
func (o *out) WriteHeader(status int) {
	if status < 200 && status != http.StatusSwitchingProtocols {
		o.inform(status)
		return
	}
	o.ResponseWriter.WriteHeader(status)
	if o.final {
		o.WriteHeaderNow()
	}
}

// inform sends a 1xx. Gin would record it like any other status: it goes to the
// server's writer.
func (o *out) inform(status int) {
	var w http.ResponseWriter = o.ResponseWriter
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = u.Unwrap()
	}
	if _, records := w.(gin.ResponseWriter); !records {
		w.WriteHeader(status)
	}
}

// Unwrap gives http.ResponseController the writer behind.
func (o *out) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// writer is what handlers write to: a gin.ResponseWriter in front of a capture.
type writer struct {
	*out
	capture  *httpcache.Writer
	status   int
	size     int
	recorded bool // a status, by the handler
}

const unwritten = -1

var _ gin.ResponseWriter = (*writer)(nil)

// WriteHeader implements http.ResponseWriter. As Gin's own it only records.
func (w *writer) WriteHeader(status int) {
	switch {
	case status <= 0:
	case w.Written():
		w.capture.Abort(status)
	default:
		w.status, w.recorded = status, true
	}
}

// WriteHeaderNow implements gin.ResponseWriter.
func (w *writer) WriteHeaderNow() {
	if !w.Written() {
		w.size, w.final = 0, true
		w.capture.WriteHeader(w.status)
	}
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	w.WriteHeaderNow()
	n, err := w.capture.Write(p)
	w.size += n
	return n, err
}

// WriteString implements io.StringWriter.
func (w *writer) WriteString(s string) (int, error) {
	w.WriteHeaderNow()
	n, err := w.capture.WriteString(s)
	w.size += n
	return n, err
}

// Status, Size and Written implement gin.ResponseWriter.
func (w *writer) Status() int   { return w.status }
func (w *writer) Size() int     { return w.size }
func (w *writer) Written() bool { return w.size != unwritten }

// Flush implements http.Flusher.
func (w *writer) Flush() {
	w.WriteHeaderNow()
	w.capture.Flush()
}

// Hijack implements http.Hijacker.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.size = max(w.size, 0)
	return w.capture.Hijack()
}

// Unwrap gives http.ResponseController, and handlers that send a 1xx, the writer
// behind.
func (w *writer) Unwrap() http.ResponseWriter { return w.capture }
