package catalogue

import (
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/itchyny/gojq"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

const maxTestTimeout = maxSettle

// tests checks a list of tests whose names must differ.
func (v *validator) tests(at []any, list []component.Test, fingerprint bool) {
	names := map[string]bool{}
	for i, t := range list {
		p := below(at, i)
		switch {
		case t.Name == "":
			v.fail(p, "name is not given")
		case !namePattern.MatchString(t.Name):
			v.fail(below(p, "name"), "%q: want a name that matches %s", t.Name, namePattern)
		case names[t.Name]:
			v.fail(below(p, "name"), "%q is the name of another test too", t.Name)
		}
		names[t.Name] = true
		v.test(p, t, fingerprint)
	}
}

func (v *validator) test(at []any, t component.Test, fingerprint bool) {
	kinds := 0
	for _, set := range []bool{t.HTTP != nil, t.PromQL != nil, t.TCP != nil, t.Exec != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		v.fail(at, "give one of http, promql, tcp and exec")
	}
	v.oneOf(below(at, "severity"), t.Severity, "fail", "warn", component.SeverityVerify)
	v.oneOf(below(at, "compare"), t.Compare, "equal", "at_least", "some")
	if t.Compare != "" && !fingerprint {
		v.fail(below(at, "compare"), "belongs to the tests of data.fingerprint")
	}
	if t.Timeout.Std() > maxTestTimeout {
		v.fail(below(at, "timeout"), "%s is longer than %s", t.Timeout.Std(), maxTestTimeout)
	}
	if t.HTTP != nil {
		v.httpTest(below(at, "http"), *t.HTTP)
	}
	if q := t.PromQL; q != nil {
		if q.URL == "" || q.Query == "" {
			v.fail(below(at, "promql"), "want url and query")
		}
		v.testURL(below(at, "promql", "url"), q.URL)
		v.oneOf(below(at, "promql", "empty"), q.Empty, "fail", "skip", "zero")
	}
	if t.TCP != nil {
		if _, _, err := net.SplitHostPort(t.TCP.Address); err != nil {
			v.fail(below(at, "tcp", "address"), "%q: want host:port", t.TCP.Address)
		}
	}
	if t.Exec != nil {
		v.command(below(at, "exec", "command"), t.Exec.Command)
		v.regexp(below(at, "exec", "match"), t.Exec.Match)
	}
}

func (v *validator) httpTest(at []any, h component.HTTPTest) {
	if h.URL == "" {
		v.fail(at, "url is not given")
	}
	v.testURL(below(at, "url"), h.URL)
	v.oneOf(below(at, "method"), h.Method, "GET", "POST")
	v.jq(below(at, "json"), h.JSON)
	v.regexp(below(at, "match"), h.Match)
	for i, code := range h.Status {
		if code < 100 || code > 599 {
			v.fail(below(at, "status", i), "%d is no HTTP status", code)
		}
	}
	if each := h.ForEach; each != nil {
		if each.URL == "" || each.JSON == "" {
			v.fail(below(at, "for_each"), "want url and json")
		}
		v.testURL(below(at, "for_each", "url"), each.URL)
		v.jq(below(at, "for_each", "json"), each.JSON)
		if !strings.Contains(h.URL+h.Body, "{value}") {
			v.fail(below(at, "url"), "%q: for_each wants {value} in it", h.URL)
		}
	}
}

// testURL is an address in which a test's own placeholders may stand.
func (v *validator) testURL(at []any, s string) {
	for _, own := range []string{"{at}", "{from}", "{value}", "{with_url}", "{with_port}", "{with_name}"} {
		if s == own || strings.HasPrefix(s, own) {
			s = "http://localhost" + s[len(own):]
		}
		s = strings.ReplaceAll(s, own, "x")
	}
	v.url(at, s)
}

func (v *validator) links() {
	names := map[string]bool{}
	for i, l := range v.c.Integration {
		p := at("integration", i)
		if (l.With == "") == (l.WithRole == "") {
			v.fail(p, "give one of with and with_role")
		}
		if l.WithRole != "" && !slices.Contains(component.Roles(), l.WithRole) {
			v.fail(below(p, "with_role"), "unknown %q; want one of %s", l.WithRole, words(component.Roles()))
		}
		if n := l.Test.Name; n != "" && !namePattern.MatchString(n) {
			v.fail(below(p, "test", "name"), "%q: want a name that matches %s", n, namePattern)
		} else if n != "" && names[n] {
			v.fail(below(p, "test", "name"), "%q is the name of another test too", n)
		}
		names[l.Test.Name] = true
		v.test(below(p, "test"), l.Test, false)
	}
}

func (v *validator) data(at []any, d component.Data) {
	if d.Path != "" {
		v.absolute(below(at, "path"), strings.TrimPrefix(d.Path, "{root}"))
	}
	b := d.Backup
	v.oneOf(below(at, "backup", "method"), b.Method, "copy", "prometheus", "sqlite")
	v.url(below(at, "backup", "url"), b.URL)
	switch {
	case b.Method == "prometheus" && b.URL == "":
		v.fail(below(at, "backup"), "prometheus needs url: the address of the snapshot API")
	case b.Method == "sqlite" && b.File == "":
		v.fail(below(at, "backup"), "sqlite needs file: the database, below data.path")
	}
	if b.File != "" && (strings.HasPrefix(b.File, "/") || slices.Contains(strings.Split(b.File, "/"), "..")) {
		v.fail(below(at, "backup", "file"), "%q: want a path below data.path", b.File)
	}
	for i, name := range b.Exclude {
		if name == "" || strings.Contains(name, "/") || name == "." || name == ".." {
			v.fail(below(at, "backup", "exclude", i), "%q: want the name of a file or directory directly below data.path", name)
		}
	}
	if d.Path == "" && (b.Method != "" || b.Always) {
		v.fail(below(at, "backup"), "there is no data.path to back up")
	}
	v.tests(below(at, "fingerprint"), d.Fingerprint, true)
}

func (v *validator) client() {
	c := v.c.Client
	if (c.Cert == "") != (c.Key == "") {
		v.fail(at("client"), "cert and key belong together")
	}
	if c.Username == "" && c.Password != "" {
		v.fail(at("client", "password"), "there is no username it could belong to")
	}
	if c.Bearer != "" && c.Username != "" {
		v.fail(at("client", "bearer"), "give either bearer or username and password")
	}
}

// startup checks how a start that takes long is watched, and what logs may hold.
func (v *validator) startup(at []any, h *component.Health) {
	s := h.Startup
	v.url(below(at, "startup", "url"), s.URL)
	v.jq(below(at, "startup", "current"), s.Current)
	v.jq(below(at, "startup", "total"), s.Total)
	if s.URL == "" && (s.Current != "" || s.Total != "") {
		v.fail(below(at, "startup"), "there is no url whose answer could tell")
	}
	if s.MaxWait.Std() > 24*maxTimeout {
		v.fail(below(at, "startup", "max_wait"), "%s is longer than %s", s.MaxWait.Std(), 24*maxTimeout)
	}
	v.regexp(below(at, "logs", "pattern"), h.Logs.Pattern)
	v.regexp(below(at, "logs", "ignore"), h.Logs.Ignore)
	for key, limit := range map[string]*int{"warn_above": h.Logs.WarnAbove, "fail_above": h.Logs.FailAbove} {
		if limit != nil && *limit < 0 {
			v.fail(below(at, "logs", key), "%d is below 0", *limit)
		}
	}
	for key, limit := range map[string]float64{"cpu_percent": h.Resources.CPUPercent, "memory_percent": h.Resources.MemoryPercent} {
		if limit < 0 || limit > 100 {
			v.fail(below(at, "resources", key), "%g is no percentage", limit)
		}
	}
}

// theirBraces are those of shells and templates, in which no placeholder stands.
var theirBraces = regexp.MustCompile(`\$\{[^}]*\}|\{\{[^{}]*\}\}`)

// command checks a command's words; own are placeholders that only this one knows.
func (v *validator) command(at []any, words []string, own ...string) {
	switch {
	case len(words) == 0:
		v.fail(at, "an empty command")
	case words[0] == "":
		v.fail(below(at, 0), "an empty command")
	}
	known := append(component.Placeholders(), own...)
	for i, w := range words {
		for _, word := range component.UnknownPlaceholders(theirBraces.ReplaceAllString(w, "")) {
			if slices.Contains(known, word) {
				continue
			}
			// What is like none of ours may be the command's, as a program for awk.
			if meant := yamlfile.Nearest(word, known); meant != "" {
				v.fail(below(at, i), "%q: unknown placeholder {%s}; did you mean {%s}? braces of the command's own take a blank: \"{ %s }\"", w, word, meant, word)
			}
		}
	}
}

func (v *validator) regexp(at []any, text string) {
	if _, err := regexp.Compile(text); err != nil {
		v.fail(at, "%v", err)
	}
}

func (v *validator) jq(at []any, text string) {
	if text == "" {
		return
	}
	q, err := gojq.Parse(component.AtMoment(text, time.Unix(0, 0)))
	if err == nil {
		_, err = gojq.Compile(q)
	}
	if err != nil {
		v.fail(at, "%q is no jq expression: %v", text, err)
	}
}

func (v *validator) oneOf(at []any, value string, known ...string) {
	if value == "" || slices.Contains(known, value) {
		return
	}
	hint := ""
	if near := yamlfile.Nearest(value, known); near != "" {
		hint = "; did you mean " + near + "?"
	}
	v.fail(at, "unknown %q; want one of %s%s", value, strings.Join(known, ", "), hint)
}
