package http1

// Error is the reason for which a request was refused. Errors are package variables, so they may
// be compared and cost nothing to return.
type Error struct {
	Status int    // HTTP status code to answer with before the connection is closed
	Reason string // what is wrong with the request
}

// Error describes the defect, without the status.
func (e *Error) Error() string { return "http1: " + e.Reason }

// The ways in which a request can be unacceptable. After any of them the Parser has lost the
// message boundary: answer with Status and close the connection.
var (
	ErrRequestLine       = &Error{400, "malformed request line"}
	ErrVersion           = &Error{505, "unsupported HTTP version"}
	ErrBareLF            = &Error{400, "line feed without carriage return"}
	ErrField             = &Error{400, "malformed header field"}
	ErrHost              = &Error{400, "missing or repeated Host"}
	ErrContentLength     = &Error{400, "malformed Content-Length"}
	ErrRepeatedLength    = &Error{400, "more than one body length"}
	ErrTransferEncoding  = &Error{501, "unsupported Transfer-Encoding"}
	ErrChunkedHTTP10     = &Error{400, "Transfer-Encoding in an HTTP/1.0 request"}
	ErrChunk             = &Error{400, "malformed chunk"}
	ErrExpect            = &Error{417, "unsupported expectation"}
	ErrRepeatedCondition = &Error{501, "more than one If-Match or If-None-Match field"}
	ErrRepeatedField     = &Error{400, "repeated Content-Type, Range, If-Range or Idempotency-Key"}
	ErrHeaderTooLarge    = &Error{431, "header too large"}
)
