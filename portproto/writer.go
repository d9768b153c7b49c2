package portproto

import (
	"io"
	"sync"
)

// Writer writes whole frames, each with one call of the writer below. It may be used by any number of goroutines, which
// wait for each other: a call blocks as long as the write below it.
type Writer struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
	err error
}

// NewWriter returns a Writer of frames to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w}
}

// Write writes a frame, as [Append] makes it. An error of the writer below stays: a frame may have been written in
// part, so nothing can follow it, and every later call returns the error again.
func (w *Writer) Write(f Frame) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = Append(w.buf[:0], f)
	return w.writeLocked(w.buf)
}

// WriteRaw writes b, which holds whole frames: usually one data frame whose header the caller put in front of its
// payload with [PutDataHeader]. The error is as that of Write.
func (w *Writer) WriteRaw(b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writeLocked(b)
}

func (w *Writer) writeLocked(b []byte) error {
	if w.err == nil {
		_, w.err = w.w.Write(b)
	}
	return w.err
}
