package httpcache

import (
	"context"
	"errors"
	"strings"

	"github.com/larderhq/larder/core/internal/loadscope"
)

// Exchange is one request and its answer in a framework's terms: the seam between this
// package and an adapter. An adapter translates and decides nothing. An Exchange is used by
// one goroutine.
type Exchange interface {
	// Line returns the request line as the handler would see it. Its strings may
	// be views of a buffer that is reused after the request.
	Line() Line
	// Values returns the values of a request field, in order, by canonical name.
	// The result is valid until the next call and must not be changed. After SnapshotFields
	// it returns what it did then, whatever a handler has done to the request.
	Values(name string) []string
	// Param returns a path parameter of the route, decoded once; "*" is the
	// wildcard. ok is false where the framework has none of that name, or has not
	// routed yet.
	Param(name string) (value string, ok bool)
	// Context is the request's context.
	Context() context.Context
	// Run runs the handlers behind the middleware, once, with ctx as their
	// context. Their answer goes to c, which says what to hold back. A nil c
	// means to leave the answer alone. The error is the framework's own, for the
	// adapter's caller; see HandlerError.
	Run(ctx context.Context, c *Capture) error
	// Release sends what Run held back, with fields added. Where nothing was answered, it
	// adds the fields to whatever is answered outside. It is called at most once, and not
	// after Reply.
	Release(fields []Field)
	// Reply sends an answer instead of running the handlers, or in place of what
	// Run held back.
	Reply(a Answer)
	// Detach copies the request and returns a function that handles the copy in
	// another goroutine, with ctx, in an exchange whose answer goes nowhere: it
	// calls load with that exchange, or dispatches the copy through the framework
	// so that it comes to the same route's Serve with ctx. nil: cannot.
	Detach() func(ctx context.Context, load func(Exchange))
}

// ContextKey is where the context that Run is given keeps what core's context
// functions work on. An adapter whose framework has a context of its own that does
// not look into that one puts the value there for the run, under the same key.
const ContextKey = loadscope.Key

// A FieldSnapshotter is an Exchange whose handlers can change the fields of the request: all
// are. SnapshotFields is called before Run; afterwards Values returns the fields as they were
// then.
type FieldSnapshotter interface{ SnapshotFields() }

// A ContentReader is an Exchange that can read a request's content, for QUERY (RFC 10008):
// all are. Content returns the content, which the handlers, and those of a copy that Detach
// makes, read again. ok is false where it is longer than limit bytes, or reading fails; the
// handlers then read the content, or meet the error.
type ContentReader interface {
	Content(limit int) (content []byte, ok bool)
}

// Line is a request line.
type Line struct {
	Method string
	Scheme string // "http" or "https"
	Host   string // with port, as the client sent it
	Path   string // escaped, as on the wire
	Query  string // raw, without '?'
	// BareQuery says that the target ends in a '?' without a query behind it.
	BareQuery bool
	// Original is the request target as the client sent it, where Path and Query
	// are not (a prefix has been stripped, a rule has rewritten it).
	Original string
	// HasBody says that the request has, or may have, content.
	HasBody bool
	// Lacks are fields that the request does not have. The zero value says nothing of them.
	Lacks FieldSet

	posted bool // a POST that reads
}

// Clone returns a copy of l that shares no memory with a request's buffer, which a handler
// may overwrite.
func (l *Line) Clone() Line {
	c := *l
	for _, s := range []*string{&c.Method, &c.Scheme, &c.Host, &c.Path, &c.Query, &c.Original} {
		*s = strings.Clone(*s)
	}
	return c
}

// HasTarget reports whether the request target on the wire is the path and query of l. A
// target in absolute form is not: the handler can tell it apart.
func (l *Line) HasTarget(target string) bool {
	path, query, found := strings.Cut(target, "?")
	return path == l.Path && query == l.Query && found == (query != "" || l.BareQuery)
}

// Field is a field of an answer.
type Field struct {
	Name   string // canonical
	Values []string
	Mode   Mode
}

// Mode says how a field meets one of the same name that outer middleware has set
// for this request.
type Mode uint8

// The modes.
const (
	Set    Mode = iota // in place of it
	Append             // behind it
	Absent             // only where there is none
	Remove             // the handler took it out; there are no values
	Join               // in the same line, as further members of its list: see JoinList
	Merge              // behind it, but for values that are there
)

// Answer is an answer from the store. Its fields and its body must not be changed.
type Answer struct {
	Status int
	Fields []Field // of the stored response
	Extra  []Field // of this hit
	Body   []byte
	// NoBody says that the body is not to be sent (HEAD, 304, 204).
	NoBody bool
	// ErrorMessage is Capture's, of the stored response.
	ErrorMessage string

	length *lengthField
	// distinct says that no two of the fields have the same name, and that each is to be
	// sent where outer middleware has set none.
	distinct bool
}

// Header is the header of an answer as an adapter's framework keeps it.
type Header interface {
	// Values returns what the client would see under a canonical name.
	Values(name string) []string
	// Own returns what the handler set or removed itself, as against what was
	// there before it ran, sorted by name. The lists of values may be the header's own:
	// what outlives the request is copied.
	Own() []Field
}

// Capture says what is to be held back of an answer. The adapter calls Head when
// the header is final, then Pass if it cannot go on holding back, and at the end
// fills in the exported fields.
type Capture struct {
	// Limit is how many bytes of content are held back at most.
	Limit int
	// Tail: content over Limit, and flushed content, is sent, but for its last byte.
	// Otherwise Pass is called then, and all is sent.
	Tail bool
	// NoBody: the answer has no content whatever the handler writes (HEAD). With
	// Tail, its header is held back to the end.
	NoBody bool
	// Conditions are request fields that the handler is to see in place of the
	// request's own conditions and range, which it is not to see. nil: it sees the
	// request as it is. Afterwards the request is as it was.
	Conditions []Field

	head             func(status int, h Header) (hold bool, add []Field)
	pass             func(reason string) (add []Field)
	wantsErrorAnswer func(status int) bool
	keepsErrorAnswer func() bool
	always           []Field // added to the answer of a write, once, however it goes out

	// The answer that was held back. Held is false when everything has been passed on, and
	// when the handler answered nothing at all.
	Held   bool
	Status int // also when not held; 0: nothing was answered
	Header Header
	Body   []byte
	// AbortStatus says that the handler gave up after its header was final, and with which
	// status it would have answered: the held content is not the whole of a response. 0: it
	// did not.
	AbortStatus int
	// ErrorMessage is the message of the error that the answer is about, for frameworks whose
	// middleware in front answers by errors that stand beside the answer.
	ErrorMessage string
}

// stores reports whether what is held back may be stored.
func (c *Capture) stores() bool { return c != nil && c.Limit > 0 && !c.Tail }

// Head reports the final status and header, before the first byte of content. It
// returns whether to hold the answer back, and what to add to it if not.
func (c *Capture) Head(status int, h Header) (hold bool, add []Field) {
	c.Status, c.Header = status, h
	if c.head == nil {
		return true, nil
	}
	return c.head(status, h)
}

// Pass reports that the held answer must be passed on: it is over the limit, is
// flushed, or the connection is taken over. It returns what to add to the header.
func (c *Capture) Pass(reason string) (add []Field) {
	if c.pass == nil {
		add, c.always = c.always, nil
		return add
	}
	return c.pass(reason)
}

// WantsErrorAnswer reports whether the framework's own answer to an error that a handler has returned
// is to be captured, although the framework gives it outside: it may be one to remember.
// status is what the framework is going to answer, 0 if that cannot be told. The adapter
// has the error answered into the capture, and asks KeepsErrorAnswer.
func (c *Capture) WantsErrorAnswer(status int) bool {
	return c.wantsErrorAnswer != nil && c.wantsErrorAnswer(status)
}

// KeepsErrorAnswer reports whether the answer to an error that was captured is the answer to the
// request, as if the handler had given it: the adapter's Run then returns no error.
// Otherwise the adapter takes the answer back, so that middleware outside finds the error
// and nothing answered, as without a cache, and calls Retract.
func (c *Capture) KeepsErrorAnswer() bool { return c.keepsErrorAnswer != nil && c.keepsErrorAnswer() }

// Retract forgets an answer that has been taken back.
func (c *Capture) Retract() {
	c.Held, c.Status, c.Header, c.Body, c.AbortStatus, c.ErrorMessage = false, 0, nil, nil, 0, ""
}

// The reasons to Pass.
const (
	Oversized = "too-large"
	Streamed  = "streamed"
)

// StatusOf returns the status that an error says itself, by a method StatusCode, and 0 of
// one that says none. Frameworks' own errors say theirs otherwise.
func StatusOf(err error) int {
	var says interface{ StatusCode() int }
	if errors.As(err, &says) {
		return says.StatusCode()
	}
	return 0
}

// HandlerError is what Run returns where the framework lets handlers return
// errors. Status is the one that the framework is going to answer, 0 if unknown.
type HandlerError struct {
	Err    error
	Status int
}

func (e *HandlerError) Error() string { return e.Err.Error() }

// Unwrap returns the handler's own error.
func (e *HandlerError) Unwrap() error { return e.Err }
