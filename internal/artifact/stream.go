package artifact

import (
	"context"
	"io"
)

// stream reads its source in a goroutine of its own, which hashes and stores
// the bytes, while the reader at the other end unpacks them: two cores share the
// work. finish must be called; it waits for the goroutine.
type stream struct {
	chunks chan []byte
	free   chan []byte
	stop   chan struct{}
	done   chan error
	rest   []byte
	cur    []byte
	passOn bool
}

const (
	chunkSize  = 256 << 10
	chunkCount = 8
)

func startStream(ctx context.Context, src io.Reader, sink io.Writer, passOn bool) *stream {
	s := &stream{
		chunks: make(chan []byte, chunkCount), free: make(chan []byte, chunkCount), stop: make(chan struct{}), done: make(chan error, 1), passOn: passOn,
	}
	for range chunkCount {
		s.free <- make([]byte, chunkSize)
	}
	go func() { s.done <- s.pump(ctx, src, sink) }()
	return s
}

// pump reads to the end even when nobody unpacks any more: the digest is of the
// whole.
func (s *stream) pump(ctx context.Context, src io.Reader, sink io.Writer) error {
	defer close(s.chunks)
	passOn := s.passOn
	own := make([]byte, chunkSize)
	for {
		buf := own
		if passOn {
			select {
			case buf = <-s.free:
			case <-s.stop:
				passOn = false
				buf = own
			}
		}
		n, err := io.ReadFull(src, buf[:chunkSize])
		if n > 0 {
			if _, werr := sink.Write(buf[:n]); werr != nil {
				return werr
			}
			if passOn {
				select {
				case s.chunks <- buf[:n]:
				case <-s.stop:
					passOn = false
				}
			}
		}
		switch {
		// By identity: an error that wraps one of these is a broken connection.
		case err == io.EOF, err == io.ErrUnexpectedEOF:
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// Read implements io.Reader for the unpacking side.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		if s.cur != nil {
			s.free <- s.cur[:cap(s.cur)]
			s.cur = nil
		}
		chunk, ok := <-s.chunks
		if !ok {
			return 0, io.EOF
		}
		s.cur, s.rest = chunk, chunk
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// finish lets the source be read to its end and returns its error.
func (s *stream) finish() error {
	close(s.stop)
	return <-s.done
}
