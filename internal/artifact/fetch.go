package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// body is an asset's bytes as one stream that mends itself: a connection that
// breaks or ends early is opened again where it stopped.
type body struct {
	ctx    context.Context
	store  *Store
	asset  component.Asset
	count  func(int64)
	offset int64
	size   int64 // expected; 0 unknown
	etag   string
	rc     io.ReadCloser
	tries  int
}

// open starts reading an asset at an offset. The connection is made by the
// first Read.
func (s *Store) open(ctx context.Context, a component.Asset, offset int64, count func(int64)) (*body, error) {
	if a.Size > s.MaxDownload {
		return nil, &SizeError{Asset: a.Name + " (the limit of downloads)", Expected: s.MaxDownload, Got: a.Size}
	}
	return &body{ctx: ctx, store: s, asset: a, count: count, offset: offset, size: a.Size}, nil
}

// Close ends the connection.
func (b *body) Close() error {
	if b.rc == nil {
		return nil
	}
	rc := b.rc
	b.rc = nil
	return rc.Close()
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	for {
		if err := b.ctx.Err(); err != nil {
			return 0, err
		}
		if b.size > 0 && b.offset > b.size {
			return 0, &SizeError{Asset: b.asset.Name, Expected: b.size, Got: b.offset}
		}
		if b.offset > b.store.MaxDownload {
			return 0, &SizeError{Asset: b.asset.Name + " (the limit of downloads)", Expected: b.store.MaxDownload, Got: b.offset}
		}
		if b.rc == nil {
			if b.size > 0 && b.offset == b.size {
				return 0, io.EOF
			}
			if err := b.connect(); err != nil {
				if retry := b.retry(err); retry != nil {
					return 0, retry
				}
				continue
			}
		}
		n, err := b.rc.Read(p)
		if n > 0 {
			b.offset += int64(n)
			b.tries = 0
			b.count(int64(n))
			if b.size > 0 && b.offset > b.size {
				return 0, &SizeError{Asset: b.asset.Name, Expected: b.size, Got: b.offset}
			}
			return n, nil
		}
		if err == nil {
			continue
		}
		_ = b.Close()
		if errors.Is(err, io.EOF) {
			if b.size == 0 || b.offset == b.size {
				return 0, io.EOF
			}
			err = fmt.Errorf("the connection ended after %d of %d bytes", b.offset, b.size)
		}
		if retry := b.retry(err); retry != nil {
			return 0, retry
		}
	}
}

// permanentError is not worth another try.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// waitError asks for a pause before the next try.
type waitError struct {
	error
	wait time.Duration
}

func (e waitError) Unwrap() error { return e.error }

// retry waits before the next try, or returns the error when there is none.
func (b *body) retry(err error) error {
	var permanent permanentError
	if errors.As(err, &permanent) || b.ctx.Err() != nil {
		return fmt.Errorf("download %s: %w", b.asset.Name, err)
	}
	b.tries++
	if b.tries >= b.store.Retries {
		return fmt.Errorf("download %s: %w (tried %d times)", b.asset.Name, err, b.tries)
	}
	wait := b.store.RetryBase << (b.tries - 1)
	wait = wait/2 + rand.N(wait/2+1)
	var asked waitError
	if errors.As(err, &asked) {
		wait = asked.wait
	}
	b.store.Logger.Debug("download is tried again", "asset", b.asset.Name, "offset", b.offset, "wait", wait, "error", err)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-b.ctx.Done():
		return b.ctx.Err()
	case <-t.C:
		return nil
	}
}

func (b *body) connect() error {
	if path, ok := strings.CutPrefix(b.asset.URL, "file://"); ok {
		return b.openFile(path)
	}
	req, err := http.NewRequestWithContext(b.ctx, http.MethodGet, b.asset.URL, nil)
	if err != nil {
		return permanentError{err}
	}
	req.Header.Set("Accept", "application/octet-stream")
	req.Header.Set("User-Agent", "observability-upgrade")
	// Go would undo a content encoding behind our back: the digest is of the bytes as stored.
	req.Header.Set("Accept-Encoding", "identity")
	if b.offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.offset))
	}
	b.store.Authorize(req)
	resp, err := b.store.HTTP.Do(req)
	if err != nil {
		return err
	}
	if err := b.accept(resp); err != nil {
		_ = resp.Body.Close()
		return err
	}
	b.rc = resp.Body
	if b.offset > 0 && resp.StatusCode == http.StatusOK {
		// No ranges here: skip what we have.
		if _, err := io.CopyN(io.Discard, resp.Body, b.offset); err != nil {
			_ = b.Close()
			return err
		}
	}
	return nil
}

func (b *body) openFile(path string) error {
	path, err := url.PathUnescape(path)
	if err != nil {
		return permanentError{err}
	}
	f, err := os.Open(path)
	if err != nil {
		return permanentError{err}
	}
	if _, err := f.Seek(b.offset, io.SeekStart); err != nil {
		return permanentError{errors.Join(err, f.Close())}
	}
	b.rc = f
	return nil
}

// accept judges an answer before its body is read.
func (b *body) accept(resp *http.Response) error {
	status := resp.StatusCode
	switch {
	case status == http.StatusOK || status == http.StatusPartialContent && b.offset > 0:
	case status == http.StatusTooManyRequests || status >= 500:
		err := fmt.Errorf("%s answered %d", hostOf(resp), status)
		if after, perr := strconv.Atoi(resp.Header.Get("Retry-After")); perr == nil && after > 0 {
			wait := time.Duration(after) * time.Second
			if wait > 30*time.Second {
				return permanentError{fmt.Errorf("%w and asks to come back in %s", err, wait)}
			}
			return waitError{err, wait}
		}
		return err
	case status == http.StatusRequestedRangeNotSatisfiable:
		return permanentError{&SizeError{Asset: b.asset.Name, Expected: b.offset, Got: b.offset}}
	case status == http.StatusForbidden && resp.Header.Get("X-Ratelimit-Remaining") == "0":
		return permanentError{fmt.Errorf("%s answered 403: the rate limit is used up; set a token in upstream.github.token", hostOf(resp))}
	default:
		return permanentError{fmt.Errorf("%s answered %d, expected 200", hostOf(resp), status)}
	}
	if tag := resp.Header.Get("ETag"); tag != "" {
		if b.etag != "" && tag != b.etag {
			return permanentError{errors.New("the file changed while it was downloaded")}
		}
		b.etag = tag
	}
	if ct := resp.Header.Get("Content-Type"); strings.HasPrefix(ct, "text/html") {
		return permanentError{fmt.Errorf("%s answered an HTML page where the file should be (a login or error page?)", hostOf(resp))}
	}
	if b.size == 0 && status == http.StatusOK && resp.ContentLength > 0 {
		b.size = resp.ContentLength
	}
	if status == http.StatusOK && b.asset.Size > 0 && resp.ContentLength > 0 && resp.ContentLength != b.asset.Size {
		return permanentError{&SizeError{Asset: b.asset.Name, Expected: b.asset.Size, Got: resp.ContentLength}}
	}
	return nil
}

func hostOf(resp *http.Response) string { return resp.Request.URL.Host }

// small fetches a small file whole: checksums and signatures.
func (s *Store) small(ctx context.Context, a component.Asset) ([]byte, error) {
	const most = 4 << 20
	if a.Size > most {
		return nil, &SizeError{Asset: a.Name, Expected: most, Got: a.Size}
	}
	b, err := s.open(ctx, a, 0, func(int64) {})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	data, err := io.ReadAll(io.LimitReader(b, most+1))
	if err == nil && len(data) > most {
		err = &SizeError{Asset: a.Name, Expected: most, Got: int64(len(data))}
	}
	return data, err
}

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
	srcErr error
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
		case err == io.EOF, err == io.ErrUnexpectedEOF: //nolint:errorlint // see above
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
