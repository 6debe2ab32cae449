package notify

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"
	"unicode"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

//go:embed templates.yaml
var builtIn []byte

// Defaults are the built-in texts, by event.
func Defaults() map[string]config.Template {
	out := map[string]config.Template{}
	if err := yamlfile.Decode("templates.yaml (built in)", builtIn, &out); err != nil {
		panic(err) // a test reads it
	}
	return out
}

// maxText bounds what a template writes, in bytes.
const maxText = 64 << 10

// errTooLong ends the execution of a template that writes without end.
var errTooLong = fmt.Errorf("it writes more than %d KiB", maxText>>10)

// render makes subject and body of a message: with the user's template where
// there is one, else, and where that fails, with the built-in one.
func render(conf *config.Notifications, d Data) (subject, body string) {
	own, std := conf.Templates[d.Event], Defaults()[d.Event]
	var notes []string
	part := func(name, own, std string) string {
		if own != "" {
			text, err := execute(name, own, d)
			if err == nil {
				return text
			}
			notes = append(notes, fmt.Sprintf("The template %s.%s in %s failed, so this is the built-in text: %v", d.Event, name, conf.File, err))
		}
		text, err := execute(name, std, d)
		if err != nil {
			text = fmt.Sprintf("%s (the built-in text failed: %v)", d.Event, err) // a test executes them all
		}
		return text
	}
	subject, body = oneLine(part("subject", own.Subject, std.Subject)), part("body", own.Body, std.Body)
	for _, note := range notes {
		body = strings.TrimRight(body, "\n") + "\n\n" + note + "\n"
	}
	return subject, body
}

func execute(name, text string, d Data) (string, error) {
	t, err := template.New(name).Parse(text)
	if err != nil {
		return "", err
	}
	var b bounded
	if err := t.Execute(&b, d); err != nil {
		return "", err
	}
	return b.String(), nil
}

// bounded is a text that does not grow beyond maxText.
type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxText {
		return 0, errTooLong
	}
	return b.Builder.Write(p)
}

// oneLine makes a text fit for a header.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	return clip(strings.Join(strings.Fields(s), " "), 500)
}

// unknownField is how package text/template says that there is no such field.
var unknownField = regexp.MustCompile(`can't evaluate field (\w+) in type \*?notify\.(Data|Component)$`)

// CheckTemplates executes every template of the user's on sample data. An error
// names the place in the file and, for a field that does not exist, the nearest.
func CheckTemplates(conf *config.Notifications) yamlfile.Errors {
	var errs yamlfile.Errors
	for _, event := range slices.Sorted(maps.Keys(conf.Templates)) {
		t := conf.Templates[event]
		for _, part := range [][2]string{{"subject", t.Subject}, {"body", t.Body}} {
			if part[1] == "" {
				continue
			}
			if err := tryTemplate(part[0], part[1], event); err != nil {
				e := config.TemplateError(conf.Root, event, part[0], err)
				e.File = conf.File
				errs = append(errs, e)
			}
		}
	}
	return errs
}

// tryTemplate executes a template as it is for a run that rolls back by itself, one
// that does not, a rollback and a refusal, since a template may tell them apart.
func tryTemplate(name, text, event string) error {
	for _, as := range []func(*Data){
		func(*Data) {},
		func(d *Data) { d.AutoRollback, d.Unchecked = false, true },
		func(d *Data) { d.AutoRollback, d.Operation = false, "rollback" },
		func(d *Data) { d.AutoRollback, d.Refused, d.Kept, d.Warnings = false, true, nil, nil },
	} {
		d := Sample(event)
		as(&d)
		_, err := execute(name, text, d)
		if err == nil {
			continue
		}
		var failed template.ExecError
		m := unknownField.FindStringSubmatch(err.Error())
		if m == nil || !errors.As(err, &failed) {
			return err
		}
		typ := reflect.TypeFor[Data]()
		if m[2] == "Component" {
			typ = reflect.TypeFor[Component]()
		}
		place, _, _ := strings.Cut(err.Error(), ": executing ")
		return fmt.Errorf("%s: there is no field .%s%s", place, m[1], nearest(m[1], fields(typ)))
	}
	return nil
}

// fields are the names that a template can use: fields, and methods of Data.
func fields(typ reflect.Type) []string {
	var out []string
	for i := range typ.NumField() {
		out = append(out, typ.Field(i).Name)
	}
	if typ == reflect.TypeFor[Data]() {
		out = append(out, "Vulnerabilities", "Actions")
	}
	return out
}

// Sample is made-up data of an event, with every field filled.
func Sample(event string) Data {
	list := []Component{
		{Name: "prometheus", OldVersion: "2.48.1", NewVersion: "2.49.0", Vulnerabilities: IDs{"CVE-2024-0001", "CVE-2024-0002"}},
		{Name: "node_exporter", OldVersion: "1.7.0", NewVersion: "1.8.0"},
	}
	status := map[string]string{UpgradeCompleted: "success", UpgradeFailed: "failed", RollbackRequired: "rollback_failed", RollbackCompleted: "rolled_back"}
	return Data{
		Event: event, Hostname: "host.example.com", RunID: "20241227_030000", Status: status[event],
		Timestamp: Time{time.Date(2024, 12, 27, 3, 0, 0, 0, time.UTC)}, Components: complete(event, list),
		EstimatedDuration: Duration(20 * time.Minute), ActualDuration: Duration(12*time.Minute + 30*time.Second),
		FailedComponent: "prometheus", Error: "not ready after 60s: 503 Service Unavailable", AutoRollback: true, BackupTimestamp: "20241227_030000",
		Operation: "apply", FailedUnit: "prometheus.service", Next: "observability-upgrade status",
		RollbackCommand: "observability-upgrade rollback --to=20241227_030000 --component=prometheus",
		Kept:            complete(event, []Component{{Name: "grafana", Instance: "a", CurrentVersion: "10.2.3", OldVersion: "10.2.2", NewVersion: "10.2.3"}}),
		Warnings:        []string{"grafana: its configuration was changed meanwhile and is kept"},
	}
}
