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
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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
	since  string // Last-Modified, where there is no ETag
	rc     io.ReadCloser
	stall  *time.Timer // gives the connection up; nil for a file
	cancel context.CancelCauseFunc
	conn   context.Context // of the connection
	tries  int
	last   error // of the try before this one
}

var (
	errStalled = errors.New("the connection brought nothing for too long")
	errPage    = errors.New("answered an HTML page where the file should be (a login or error page?)")
	// errOtherBytes says that what is offered is not what the download began with.
	errOtherBytes = errors.New("the file upstream is not the one the download began with")
)

// open starts reading an asset at an offset. The connection is made by the
// first Read.
func (s *Store) open(ctx context.Context, a component.Asset, offset int64, count func(int64)) (*body, error) {
	if a.Size > s.MaxDownload {
		return nil, &SizeError{Asset: a.Name, Expected: s.MaxDownload, Got: a.Size, Limit: true}
	}
	return &body{ctx: ctx, store: s, asset: a, count: count, offset: offset, size: a.Size}, nil
}

// Close ends the connection.
func (b *body) Close() error {
	if b.stall != nil {
		b.stall.Stop()
		b.stall = nil
	}
	if b.cancel != nil {
		b.cancel(nil)
		b.cancel = nil
	}
	if b.rc == nil {
		return nil
	}
	rc := b.rc
	b.rc = nil
	return rc.Close()
}

// broken names the reason when it was we who gave the connection up.
func (b *body) broken(err error) error {
	if b.conn != nil && errors.Is(context.Cause(b.conn), errStalled) {
		return errStalled
	}
	return err
}

// readConn is one Read of the connection, given up when nothing comes. The time
// between reads, which is the unpacking's, does not count.
func (b *body) readConn(p []byte) (int, error) {
	if b.stall == nil {
		return b.rc.Read(p)
	}
	b.stall.Reset(b.store.Stall)
	n, err := b.rc.Read(p)
	b.stall.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.broken(err)
	}
	return n, err
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	for {
		if err := b.ctx.Err(); err != nil {
			return 0, b.ranOut(err)
		}
		if b.size > 0 && b.offset > b.size {
			return 0, &SizeError{Asset: b.asset.Name, Expected: b.size, Got: b.offset}
		}
		if b.offset > b.store.MaxDownload {
			return 0, &SizeError{Asset: b.asset.Name, Expected: b.store.MaxDownload, Got: b.offset, Limit: true}
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
		n, err := b.readConn(p)
		if n > 0 {
			b.offset += int64(n)
			b.tries, b.last = 0, nil
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
	if errors.As(err, &permanent) {
		return fmt.Errorf("download %s: %w", b.asset.Name, err)
	}
	if end := b.ctx.Err(); end != nil {
		// The connection may have broken off a moment before, which says nothing of the end.
		if !errors.Is(err, end) && !errors.Is(err, context.Cause(b.ctx)) {
			b.last, err = err, end
		}
		return b.ranOut(err)
	}
	b.tries++
	b.last = err
	if b.tries >= b.store.Retries {
		return fmt.Errorf("download %s: %w (tried %d times)", b.asset.Name, err, b.tries)
	}
	wait := b.store.RetryBase << (b.tries - 1)
	wait = wait/2 + rand.N(wait/2+1) //nolint:gosec // so that not all hosts ask at once; nobody gains by guessing it
	var asked waitError
	if errors.As(err, &asked) {
		wait = asked.wait
	}
	b.store.Logger.Debug("download is tried again", "asset", b.asset.Name, "offset", b.offset, "wait", wait, "error", err)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-b.ctx.Done():
		return b.ranOut(b.ctx.Err())
	case <-t.C:
		return nil
	}
}

// ranOut is the error of a try that our own end of time cut off: what ailed the
// try before it is what there is to mend.
func (b *body) ranOut(err error) error {
	if b.last == nil {
		return fmt.Errorf("download %s: %w", b.asset.Name, err)
	}
	return fmt.Errorf("download %s: %w; tried again: %w", b.asset.Name, b.last, err)
}

func (b *body) connect() error {
	if path, ok := strings.CutPrefix(b.asset.URL, "file://"); ok {
		return b.openFile(path)
	}
	b.conn, b.cancel = context.WithCancelCause(b.ctx)
	cancel := b.cancel
	b.stall = time.AfterFunc(b.store.Stall, func() { cancel(errStalled) })
	err := b.request()
	if err != nil {
		err = b.broken(err)
		_ = b.Close()
	}
	return err
}

func (b *body) request() error {
	req, err := http.NewRequestWithContext(b.conn, http.MethodGet, b.asset.URL, nil)
	if err != nil {
		return permanentError{err}
	}
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return permanentError{fmt.Errorf("%q is no address that can be fetched: want https://, http:// or file:///", b.asset.URL)}
	}
	req.Header.Set("Accept", "application/octet-stream")
	req.Header.Set("User-Agent", "observability-upgrade")
	// Go would undo a content encoding behind our back: the digest is of the bytes as stored.
	req.Header.Set("Accept-Encoding", "identity")
	if b.offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.offset))
		// RFC 9110, 13.1.5: a weak tag proves nothing about bytes.
		if b.etag != "" && !strings.HasPrefix(b.etag, "W/") {
			req.Header.Set("If-Range", b.etag)
		} else if b.since != "" {
			req.Header.Set("If-Range", b.since)
		}
	}
	b.store.Authorize(req)
	resp, err := b.store.client.Do(req)
	if err != nil {
		return err
	}
	b.stall.Stop()
	if err := b.accept(resp); err != nil {
		_ = resp.Body.Close()
		return err
	}
	b.rc = resp.Body
	if b.offset > 0 && resp.StatusCode == http.StatusOK {
		// No ranges here: skip what we have.
		if _, err := io.CopyN(io.Discard, connReader{b}, b.offset); err != nil {
			return err
		}
	}
	return nil
}

// connReader is the connection with its watch for stalls.
type connReader struct{ b *body }

// Read implements io.Reader.
func (r connReader) Read(p []byte) (int, error) { return r.b.readConn(p) }

// openFile opens a file of a directory source.
func (b *body) openFile(path string) error {
	path, err := url.PathUnescape(path)
	if err != nil {
		return permanentError{err}
	}
	if !filepath.IsAbs(path) {
		return permanentError{fmt.Errorf("%q: want file:///ABSOLUTE/PATH", b.asset.URL)}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // no waiting for a pipe's other end
	if err != nil {
		return permanentError{err}
	}
	b.rc = f
	st, err := f.Stat()
	switch {
	case err != nil:
		return permanentError{err}
	case !st.Mode().IsRegular():
		return permanentError{fmt.Errorf("%s is not a regular file", path)}
	case b.asset.Size > 0 && st.Size() != b.asset.Size:
		return permanentError{&SizeError{Asset: b.asset.Name, Expected: b.asset.Size, Got: st.Size()}}
	}
	if _, err := f.Seek(b.offset, io.SeekStart); err != nil {
		return permanentError{err}
	}
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
		return permanentError{fmt.Errorf("%s has nothing beyond byte %d: %w", hostOf(resp), b.offset, errOtherBytes)}
	case status == http.StatusForbidden && resp.Header.Get("X-Ratelimit-Remaining") == "0":
		return permanentError{fmt.Errorf("%s answered 403: the rate limit is used up; set a token in upstream.github.token", hostOf(resp))}
	default:
		return permanentError{fmt.Errorf("%s answered %d, expected 200", hostOf(resp), status)}
	}
	if tag := resp.Header.Get("ETag"); tag != "" {
		if b.etag != "" && tag != b.etag {
			return permanentError{fmt.Errorf("%w: its ETag was %s and is now %s", errOtherBytes, b.etag, tag)}
		}
		b.etag = tag
	}
	if since := resp.Header.Get("Last-Modified"); since != "" {
		if b.since != "" && since != b.since && b.etag == "" {
			return permanentError{fmt.Errorf("%w: it was last modified at %s, and now at %s", errOtherBytes, b.since, since)}
		}
		b.since = since
	}
	if status == http.StatusPartialContent {
		return b.acceptRange(resp)
	}
	if ct := resp.Header.Get("Content-Type"); strings.HasPrefix(ct, "text/html") {
		return permanentError{fmt.Errorf("%s %w", hostOf(resp), errPage)}
	}
	if b.size == 0 && resp.ContentLength > 0 {
		b.size = resp.ContentLength
	}
	if b.asset.Size > 0 && resp.ContentLength > 0 && resp.ContentLength != b.asset.Size {
		return permanentError{&SizeError{Asset: b.asset.Name, Expected: b.asset.Size, Got: resp.ContentLength}}
	}
	return nil
}

// acceptRange makes sure that a partial answer goes on where we stopped.
func (b *body) acceptRange(resp *http.Response) error {
	var start, end, total int64
	cr := resp.Header.Get("Content-Range")
	n, _ := fmt.Sscanf(cr, "bytes %d-%d/%d", &start, &end, &total)
	if n < 2 || start != b.offset {
		return permanentError{fmt.Errorf("%s answered with the range %q where bytes from %d were asked for", hostOf(resp), cr, b.offset)}
	}
	if n == 3 && b.size == 0 {
		b.size = total
	}
	if n == 3 && b.size != total {
		return permanentError{&SizeError{Asset: b.asset.Name, Expected: b.size, Got: total}}
	}
	return nil
}

func hostOf(resp *http.Response) string { return resp.Request.URL.Host }

// small fetches a small file whole: checksums and signatures.
func (s *Store) small(ctx context.Context, a component.Asset) ([]byte, error) {
	const most = 4 << 20
	if a.Size > most {
		return nil, &SizeError{Asset: a.Name, Expected: most, Got: a.Size, Limit: true}
	}
	b, err := s.open(ctx, a, 0, func(int64) {})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	data, err := io.ReadAll(io.LimitReader(b, most+1))
	if err == nil && len(data) > most {
		err = &SizeError{Asset: a.Name, Expected: most, Got: int64(len(data)), Limit: true}
	}
	return data, err
}
