package adaptertest

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache"
)

// Std is a Ctx over net/http. Frameworks on net/http embed it and override what they do
// differently: Param, Native, Text, SetContext.
type Std struct {
	Writer  http.ResponseWriter
	Request *http.Request
}

var _ Ctx = (*Std)(nil)

// Context implements Ctx.
func (s *Std) Context() context.Context { return s.Request.Context() }

// SetContext implements Ctx. The handlers behind must get s.Request.
func (s *Std) SetContext(ctx context.Context) { s.Request = s.Request.WithContext(ctx) }

// Native implements Ctx.
func (s *Std) Native() context.Context { return nil }

// Method implements Ctx.
func (s *Std) Method() string { return s.Request.Method }

// Target implements Ctx.
func (s *Std) Target() string { return s.Request.URL.RequestURI() }

// Host implements Ctx.
func (s *Std) Host() string { return s.Request.Host }

// Param implements Ctx.
func (s *Std) Param(name string) string { return s.Request.PathValue(name) }

// Values implements Ctx.
func (s *Std) Values(name string) []string { return s.Request.Header.Values(name) }

// Body implements Ctx.
func (s *Std) Body() string {
	b, err := io.ReadAll(s.Request.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Set implements Ctx.
func (s *Std) Set(name, value string) { s.Writer.Header().Set(name, value) }

// Add implements Ctx.
func (s *Std) Add(name, value string) { s.Writer.Header().Add(name, value) }

// Remove takes a field out of the header of the answer.
func (s *Std) Remove(name string) { s.Writer.Header().Del(name) }

// SetRequest changes a field of the request.
func (s *Std) SetRequest(name, value string) { s.Request.Header.Set(name, value) }

// RunHandler implements HandlerRunner.
func (s *Std) RunHandler(h http.Handler) error {
	h.ServeHTTP(s.Writer, s.Request)
	return nil
}

// Upload implements Uploader.
func (s *Std) Upload(field string) (size int64, err error) {
	if err := s.Request.ParseMultipartForm(1 << 10); err != nil {
		return 0, err
	}
	_, part, err := s.Request.FormFile(field)
	if err != nil {
		return 0, err
	}
	return part.Size, nil
}

// Status implements Ctx.
func (s *Std) Status(status int) { s.Writer.WriteHeader(status) }

// Write implements Ctx.
func (s *Std) Write(p []byte) (int, error) { return s.Writer.Write(p) }

// Text implements Ctx.
func (s *Std) Text(status int, body string) error {
	s.Set("Content-Type", "text/plain; charset=utf-8")
	s.Writer.WriteHeader(status)
	_, err := io.WriteString(s.Writer, body)
	return err
}

// Stream implements Ctx.
func (s *Std) Stream(fn func(w io.Writer, flush func())) error {
	fn(s.Writer, func() { s.Writer.(http.Flusher).Flush() })
	return nil
}

// EarlyHints implements Ctx.
func (s *Std) EarlyHints(link string) {
	h := s.Writer.Header()
	h.Add("Link", link)
	s.Writer.WriteHeader(http.StatusEarlyHints)
	h.Del("Link")
}

// ResponseWriter implements Ctx.
func (s *Std) ResponseWriter() http.ResponseWriter { return s.Writer }

// AsSentWriter is an AsSent of net/http: it calls Fn before the header goes out.
type AsSentWriter struct {
	http.ResponseWriter
	Fn   func()
	sent bool
}

// Unwrap gives http.ResponseController the writer behind.
func (w *AsSentWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *AsSentWriter) WriteHeader(status int) {
	if !w.sent && status >= 200 {
		w.sent = true
		w.Fn()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *AsSentWriter) Write(p []byte) (int, error) {
	if !w.sent {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// Serve returns a Server of net/http for h. It discards its log, since panics of handlers
// are part of the suite.
func Serve(h http.Handler) Server {
	return &stdServer{http.Server{
		Handler:           h,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ReadHeaderTimeout: time.Minute,
	}}
}

type stdServer struct{ srv http.Server }

// Warm implements Warmer.
func (s *stdServer) Warm(ctx context.Context, urls iter.Seq[string], o core.WarmOptions) (core.WarmResult, error) {
	return httpcache.Warm(ctx, s.srv.Handler, urls, o)
}

func (s *stdServer) Serve(l net.Listener) error {
	if err := s.srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *stdServer) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(s.srv.Shutdown(ctx), s.srv.Close())
}
