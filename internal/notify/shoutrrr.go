package notify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nicholas-fedor/shoutrrr/pkg/router"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
)

// service sends by one of the services of the shoutrrr library.
//
// The library takes no context, and some of its services wait for ever. A call that
// has not ended in time is left to itself, and only one at a time: the next attempt
// waits for it first, and where it was of the same message takes its outcome. A call
// that never ends is cut off with the process, which delivers and then ends.
type service struct {
	url  string
	late *call
}

// call is one that was begun.
type call struct {
	id     string
	result chan error // buffered: the call ends also when nobody waits
}

func newService(conf config.Shoutrrr) (*service, error) {
	s := &service{url: string(conf.URL)}
	if scheme, _, _ := strings.Cut(s.url, ":"); strings.EqualFold(scheme, "logger") {
		return nil, errors.New("the service logger reaches nobody; choose another")
	}
	if _, err := s.open(true); err != nil {
		return nil, err
	}
	return s, nil
}

// open makes the library's service of the address. Matrix signs in while it reads
// its address, so that one is left as it is where only a look is wanted. What the
// library panics with is an error like others.
func (s *service) open(look bool) (svc types.Service, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = permanent(fmt.Errorf("url: the library failed on it: %v", p))
		}
	}()
	var r router.ServiceRouter
	scheme, u, err := r.ExtractServiceName(s.url)
	if err != nil {
		return nil, permanent(errors.New("url: it is not an address of the form SERVICE://…"))
	}
	if svc, err = r.NewService(scheme); err != nil {
		return nil, permanent(fmt.Errorf("url: there is no service %q; there are %s", scheme, strings.Join(services(), ", ")))
	}
	if u.Scheme != scheme { // SERVICE+https://…
		custom, ok := svc.(types.CustomURLService)
		if !ok {
			return nil, permanent(fmt.Errorf("url: %s takes addresses of the form %s:// only", scheme, scheme))
		}
		if u, err = custom.GetConfigURLFromCustom(u); err != nil {
			return nil, permanent(fmt.Errorf("url: %s does not take it: %w", scheme, err))
		}
	}
	if scheme == "matrix" {
		if look {
			return svc, nil
		}
		return svc, fromText(svc.Initialize(u, quiet{}))
	}
	if err := svc.Initialize(u, quiet{}); err != nil {
		return nil, permanent(fmt.Errorf("url: %s does not take it: %w", scheme, err))
	}
	return svc, nil
}

// services are those that can be used.
func services() []string {
	var out []string
	for _, name := range (&router.ServiceRouter{}).ListServices() {
		if name != "logger" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (s *service) send(ctx context.Context, m *message) error {
	if s.late != nil {
		late := s.late
		err := late.wait(ctx)
		if errors.Is(err, errStillBusy) {
			return fmt.Errorf("the attempt before this one has not ended: %w", cause(ctx, err))
		}
		s.late = nil
		if late.id == m.ID && err == nil {
			return nil
		}
	}
	c := &call{id: m.ID, result: make(chan error, 1)}
	go func() { c.result <- s.call(m) }()
	err := c.wait(ctx)
	if errors.Is(err, errStillBusy) {
		s.late = c
		return cause(ctx, err)
	}
	return err
}

// errStillBusy says that a call has not ended.
var errStillBusy = errors.New("no end yet")

func (c *call) wait(ctx context.Context) error {
	select {
	case err := <-c.result:
		return err
	case <-ctx.Done():
		return errStillBusy
	}
}

// call makes one attempt.
func (s *service) call(m *message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = permanent(fmt.Errorf("the library failed: %v", p))
		}
	}()
	svc, err := s.open(false)
	if err != nil {
		return err
	}
	params := types.Params{}
	params.SetTitle(m.Subject)
	return fromText(svc.Send(m.Body, &params))
}

// statusText finds an HTTP status in an error, such as "404 Not Found".
var statusText = regexp.MustCompile(`\b(4\d\d) ([A-Z][A-Za-z' -]+)`)

// fromText judges by what an error says, since the library's have no code: a client
// error that HTTP knows stays, as in fromStatus.
func fromText(err error) error {
	if err == nil {
		return nil
	}
	err = withoutAddress(err)
	for _, m := range statusText.FindAllStringSubmatch(err.Error(), -1) {
		code, _ := strconv.Atoi(m[1]) // the expression has digits only
		if text := http.StatusText(code); text != "" && strings.HasPrefix(m[2], text) && permanentStatus(code) {
			return permanent(err)
		}
	}
	return err
}

// withoutAddress takes the address of a url.Error out of the text around it.
func withoutAddress(err error) error {
	var ue *url.Error
	if !errors.As(err, &ue) {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), ue.URL, "its address"))
}

// quiet takes the library's log, which holds addresses, and drops it.
type quiet struct{}

func (quiet) Print(...any)          {}
func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}
