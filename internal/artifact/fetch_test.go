package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/freeport"
)

// bareRelease is a release of one bare program at a server of the test's own.
func bareRelease(url string, body []byte) (*component.Component, component.Release) {
	sum := sha256.Sum256(body)
	c := &component.Component{Name: "tool", Asset: "tool-{os}-{arch}", Binaries: []component.Binary{{Name: "tool"}}}
	return c, component.Release{Version: component.MustParseVersion("1.2.0"), Assets: []component.Asset{
		{Name: "tool-linux-amd64", URL: url, Size: int64(len(body)), Digest: component.Digest("sha256:" + hex.EncodeToString(sum[:]))},
	}}
}

func fetchBare(t *testing.T, o Options, url string, body []byte, change func(*Request)) (*Staged, error) {
	t.Helper()
	c, r := bareRelease(url, body)
	req := Request{Component: c, Release: r, OS: "linux", Arch: "amd64", Staging: filepath.Join(t.TempDir(), "staging"), ChecksumRequired: true}
	if change != nil {
		change(&req)
	}
	if o.CacheDir == "" {
		o.CacheDir = t.TempDir()
	}
	if o.RetryBase == 0 {
		o.RetryBase = time.Millisecond
	}
	return New(o).Stage(t.Context(), req)
}

func program(n int) []byte { return append([]byte(script), random(n)...) }

func TestDownloadSurvives(t *testing.T) {
	body := program(1 << 20)
	half := len(body) / 2
	for name, tc := range map[string]struct {
		first  func(w http.ResponseWriter, r *http.Request) // the first answer
		second func(w http.ResponseWriter, r *http.Request) // nil: http.ServeContent
		check  func(t *testing.T, ranges []string)
		stall  time.Duration
	}{
		"a broken connection, with ranges": {
			first: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("ETag", `"one"`)
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				_, _ = w.Write(body[:half])
				panic(http.ErrAbortHandler)
			},
			check: func(t *testing.T, ranges []string) {
				if !strings.HasPrefix(ranges[1], "bytes=") || !strings.HasSuffix(ranges[1], ` "one"`) {
					t.Fatalf("Range and If-Range: %q", ranges)
				}
			},
		},
		"a broken connection, without ranges": {
			first: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				_, _ = w.Write(body[:half])
				panic(http.ErrAbortHandler)
			},
			second: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) },
		},
		"an answer that ends early without saying so": {
			first: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body[:half]) },
		},
		"a 503 that says when to come back": {
			first: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		},
		"a server that falls silent": {
			first: func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write(body[:half])
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			},
			stall: 200 * time.Millisecond,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var ranges []string
			ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				ranges = append(ranges, r.Header.Get("Range")+" "+r.Header.Get("If-Range"))
				n := len(ranges)
				mu.Unlock()
				switch {
				case n == 1:
					tc.first(w, r)
				case tc.second != nil:
					tc.second(w, r)
				default:
					w.Header().Set("ETag", `"one"`)
					http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
				}
			}))
			defer ts.Close()
			st, err := fetchBare(t, Options{Stall: tc.stall}, ts.URL, body, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(st.Files[0].Path)
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%d bytes, want %d; %v", len(got), len(body), err)
			}
			if len(ranges) != 2 {
				t.Fatalf("%d requests", len(ranges))
			}
			if tc.check != nil {
				tc.check(t, ranges)
			}
		})
	}
}

// The time that runs out is told, and so is what broke off just before.
func TestRetryAtTheEnd(t *testing.T) {
	cause := errors.New("a signal")
	over, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	cut, end := context.WithCancelCause(t.Context())
	end(cause)
	for name, tc := range map[string]struct {
		ctx context.Context
		err error
		is  []error
		not error
	}{
		"broken off just before": {over, io.ErrUnexpectedEOF, []error{io.ErrUnexpectedEOF, context.DeadlineExceeded}, nil},
		"by the time itself":     {over, context.DeadlineExceeded, []error{context.DeadlineExceeded}, nil},
		"by what ended it":       {cut, cause, []error{cause}, context.Canceled},
		"for good":               {over, permanentError{io.ErrNoProgress}, []error{io.ErrNoProgress}, context.DeadlineExceeded},
	} {
		b := &body{ctx: tc.ctx, store: New(Options{}), asset: component.Asset{Name: "tool"}}
		err := b.retry(tc.err)
		for _, is := range tc.is {
			if !errors.Is(err, is) {
				t.Errorf("%s: %v, want %v", name, err, is)
			}
		}
		if tc.not != nil && errors.Is(err, tc.not) || tc.not == nil && len(tc.is) == 1 && strings.Contains(err.Error(), "tried again") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDownloadRefuses(t *testing.T) {
	body := program(100_000)
	for name, tc := range map[string]struct {
		options Options
		handler http.HandlerFunc
		want    string
		is      error
	}{
		"more bytes than announced": {handler: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(body)
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write([]byte("more"))
		}, want: "expected 100056 bytes, got"},
		"another length": {handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body[:10]) }, want: "expected 100056 bytes, got 10"},
		"beyond the limit": {options: Options{MaxDownload: 1000}, handler: func(w http.ResponseWriter, _ *http.Request) {
			t.Error("asked for all the same")
		}, want: "the limit is 1000"},
		"HTML without saying so": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write(append([]byte("<!DOCTYPE html>"), make([]byte, len(body)-15)...))
		}, want: "HTML page"},
		"another file half-way": {handler: func() http.HandlerFunc {
			var n atomic.Int32
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("ETag", fmt.Sprintf(`"v%d"`, n.Add(1)))
				if n.Load() == 1 {
					w.Header().Set("Content-Length", fmt.Sprint(len(body)))
					_, _ = w.Write(body[:len(body)/2])
					panic(http.ErrAbortHandler)
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
			}
		}(), want: "its ETag was", is: errOtherBytes},
		"a range from elsewhere": {handler: func() http.HandlerFunc {
			var n atomic.Int32
			return func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) == 1 {
					w.Header().Set("Content-Length", fmt.Sprint(len(body)))
					_, _ = w.Write(body[:len(body)/2])
					panic(http.ErrAbortHandler)
				}
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(body)-1, len(body)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(body)
			}
		}(), want: "bytes from"},
		"Retry-After of an hour": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
		}, want: "come back in 1h0m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			ts := httptest.NewServer(tc.handler)
			defer ts.Close()
			_, err := fetchBare(t, tc.options, ts.URL, body, nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Fatalf("err = %v, want %q", err, tc.want)
			}
		})
	}
}

// Where the time ends while a download is tried again, the error says what ailed the
// tries: that is what there is to mend.
func TestDownloadOutOfTime(t *testing.T) {
	gone, bound, err := freeport.Shut()
	if err != nil {
		t.Fatal(err)
	}
	defer bound.Close()
	var asked atomic.Int32
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		<-r.Context().Done()
	}))
	defer silent.Close()
	for name, tc := range map[string]struct {
		url  string
		base time.Duration
		want string
	}{
		"between two tries": {"http://" + gone, time.Hour, "connection refused; tried again: context deadline"},
		"in a later try":    {silent.URL, time.Millisecond, "answered 502; tried again: "},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		c, r := bareRelease(tc.url, program(10))
		_, err := New(Options{CacheDir: t.TempDir(), RetryBase: tc.base}).Stage(ctx, Request{
			Component: c, Release: r, OS: "linux", Arch: "amd64", Staging: filepath.Join(t.TempDir(), "staging"), ChecksumRequired: true,
		})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

// A partial file that is longer than the asset, or has the right length and
// wrong bytes, must not stand in the way for ever.
func TestBadPartialFiles(t *testing.T) {
	body := program(50_000)
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}))
	defer ts.Close()
	for name, tc := range map[string]struct {
		part []byte
		size bool // upstream says how long it is
	}{
		"longer": {append(bytes.Clone(body), "more"...), true}, "same length": {random(len(body)), true}, "longer, size unknown": {append(bytes.Clone(body), "more"...), false},
		"whole": {body, true},
	} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			sum := sha256.Sum256(body)
			if err := os.Mkdir(filepath.Join(cache, "partial"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(cache, "partial", hex.EncodeToString(sum[:])), tc.part, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := fetchBare(t, Options{CacheDir: cache}, ts.URL, body, func(r *Request) {
				if !tc.size {
					r.Release.Assets[0].Size = 0
				}
			}); err != nil {
				t.Fatal(err)
			}
			if left, _ := os.ReadDir(filepath.Join(cache, "partial")); len(left) != 0 {
				t.Fatalf("left: %v", left)
			}
		})
	}
}

func TestRedirectsLoseCredentials(t *testing.T) {
	body := program(1000)
	seen := make(chan http.Header, 1)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Clone()
		_, _ = w.Write(body)
	}))
	defer other.Close()
	var first http.Header
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first = r.Header.Clone()
		http.Redirect(w, r, other.URL, http.StatusFound)
	}))
	defer ts.Close()
	if _, err := fetchBare(t, Options{Authorize: func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer s3cret")
		r.Header.Set("PRIVATE-TOKEN", "s3cret")
	}}, ts.URL, body, nil); err != nil {
		t.Fatal(err)
	}
	got := <-seen
	if first.Get("Authorization") == "" || got.Get("Authorization") != "" || got.Get("Private-Token") != "" || got.Get("Accept-Encoding") != "identity" {
		t.Fatalf("first %v, other host %v", first, got)
	}
}

func TestRedirectNeverGivesUpEncryption(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("asked without encryption") }))
	defer plain.Close()
	ts := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer ts.Close()
	_, err := fetchBare(t, Options{HTTP: ts.Client()}, ts.URL, program(10), nil)
	if err == nil || !strings.Contains(err.Error(), "drops the encryption") || strings.Contains(err.Error(), "tried") {
		t.Fatalf("err = %v", err)
	}
}

func TestFileSource(t *testing.T) {
	body := program(1000)
	path := filepath.Join(t.TempDir(), "a b")
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fetchBare(t, Options{}, "file://"+strings.ReplaceAll(path, " ", "%20"), body, nil); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"file://" + filepath.Dir(path): "not a regular file", "file://relative/x": "ABSOLUTE", "ftp://x/y": "no address that can be fetched",
		"file://" + path + ".missing": "no such file",
	} {
		if _, err := fetchBare(t, Options{}, url, body, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: err = %v, want %q", url, err, want)
		}
	}
}

// Two components that come out of one archive fetch it once.
func TestSameArchiveIsFetchedOnce(t *testing.T) {
	body := program(300_000)
	var requests atomic.Int32
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}))
	defer ts.Close()
	s := New(Options{CacheDir: t.TempDir()})
	staging := filepath.Join(t.TempDir(), "staging")
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() {
			c, r := bareRelease(ts.URL, body)
			c.Name = fmt.Sprintf("tool%d", i)
			_, errs[i] = s.Stage(t.Context(), Request{Component: c, Release: r, OS: "linux", Arch: "amd64", Staging: staging, ChecksumRequired: true})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil || requests.Load() != 1 {
		t.Fatalf("%d requests, %v", requests.Load(), err)
	}
}

func TestCancelledDownloadIsGoneOnFrom(t *testing.T) {
	body := program(1 << 20)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var starts []string
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		starts = append(starts, r.Header.Get("Range"))
		if len(starts) > 1 {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body[:3*chunkSize])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer ts.Close()
	c, r := bareRelease(ts.URL, body)
	cache, staging := t.TempDir(), filepath.Join(t.TempDir(), "staging")
	seen := int64(0)
	req := Request{Component: c, Release: r, OS: "linux", Arch: "amd64", Staging: staging, ChecksumRequired: true}
	_, err := New(Options{CacheDir: cache, Progress: adder(func(n int64) {
		if seen += n; seen >= 3*chunkSize {
			cancel()
		}
	})}).Stage(ctx, req)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("err = %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(staging, "*", "*")); len(left) > 0 {
		t.Fatalf("left in staging: %v", left)
	}
	if _, err := New(Options{CacheDir: cache}).Stage(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if len(starts) != 2 || !strings.HasPrefix(starts[1], "bytes=") {
		t.Fatalf("requests: %q", starts)
	}
}

type adder func(int64)

func (adder) Start(string, string, int64) {}
func (a adder) Add(_ string, n int64)     { a(n) }
func (adder) Done(string, string, error)  {}
