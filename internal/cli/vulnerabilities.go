package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/vulnerability"
)

type vulnerabilitiesOptions struct {
	*global
	components []string
	refresh    bool
}

func newVulnerabilities(g *global) *cobra.Command {
	o := &vulnerabilitiesOptions{global: g}
	cmd := &cobra.Command{
		Use:     "vulnerabilities",
		Aliases: []string{"vulns"},
		Short:   "Show which installed components have known vulnerabilities",
		Long: `Show which installed components have known vulnerabilities: by their version, and
by the modules and the Go release that their programs say they were built from.

Nothing is fetched without --refresh, which brings what is new from
vulnerabilities.database (https://vuln.go.dev, a mirror, or a directory) and
vulnerabilities.osv of the policy; when that fails, what is here stays in use.

What cannot be known is shown as not known, with the reason, never as safe. The
exit code says nothing about what was found: scripts read --output=json.`,
		Example: `  observability-upgrade vulnerabilities --refresh
  observability-upgrade vulnerabilities --component=prometheus
  observability-upgrade vulns --output=json | jq '.components[] | select(.state != "none")'`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.componentFlag(cmd, &o.components, false)
	cmd.Flags().BoolVar(&o.refresh, "refresh", false, "fetch what is new first")
	return cmd
}

func (o *vulnerabilitiesOptions) run(ctx context.Context) error {
	s, d, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	comps, err := s.Components(o.components)
	if err != nil {
		return err
	}
	if o.refresh {
		done, err := s.RefreshVulnerabilities(ctx)
		if err != nil {
			return err
		}
		d.line("%s: %s fetched, %d there are for what the catalogue and the installed programs name", done.Source, plural(done.Fetched, "record"), done.Records)
	}
	doc, err := s.Vulnerabilities(ctx)
	if err != nil {
		return err
	}
	if len(o.components) > 0 {
		doc.Components = slices.DeleteFunc(doc.Components, func(r vulnerability.Result) bool {
			return !slices.ContainsFunc(comps, func(c *component.Component) bool { return c.Name == r.Name })
		})
	}
	return o.print(doc, func(w io.Writer) error {
		_, err := io.WriteString(w, vulnerabilitiesText(doc, o.style()))
		return err
	})
}

// vulnerabilitiesText is the document for people.
func vulnerabilitiesText(doc vulnerability.Document, st plan.Style) string {
	var b strings.Builder
	b.WriteString(databaseText(doc.Database, st))
	if len(doc.Components) == 0 {
		b.WriteString("\nNo component was found on this host: observability-upgrade components list\n")
	}
	for _, r := range doc.Components {
		if r.Reason == doc.Database.Problem {
			r.Reason = "" // told once
		}
		b.WriteString("\n")
		b.WriteString(resultText(r, st))
	}
	return b.String()
}

func databaseText(db vulnerability.Info, st plan.Style) string {
	if db.Modified == nil {
		return st.Paragraph("Database: ", "  ", plan.Yellow, db.Problem)
	}
	tone, note := plan.Default, ""
	if db.Stale {
		tone, note = plan.Yellow, "; that is more than vulnerabilities.max_age, so nothing is taken for safe"
	}
	return st.Paragraph("Database: ", "  ", tone, fmt.Sprintf("%s, newest record of %s (%s old), fetched on %s%s",
		db.Source, db.Modified.UTC().Format(time.DateOnly), age(time.Duration(db.AgeSeconds)*time.Second), db.CheckedAt.UTC().Format("2006-01-02 15:04 MST"), note))
}

func resultText(r vulnerability.Result, st plan.Style) string {
	var b strings.Builder
	name := strings.TrimSpace(r.Name + " " + r.Version.String())
	switch r.State {
	case vulnerability.Affected:
		b.WriteString(st.Paint(plan.Bold, name) + ": " + st.Paint(plan.Red, plural(len(r.Vulnerabilities), "known vulnerabilit")) + "\n")
	case vulnerability.None:
		b.WriteString(st.Paint(plan.Bold, name) + ": " + st.Paint(plan.Green, "none known") + "\n")
	default:
		b.WriteString(st.Paint(plan.Bold, name) + ": " + st.Paint(plan.Yellow, "not known") + "\n")
	}
	for _, f := range r.Vulnerabilities {
		b.WriteString(st.Paragraph("  - ", "    ", tone(f.Severity), findingText(f)))
	}
	if r.Reason != "" {
		b.WriteString(st.Paragraph("  ", "  ", plan.Default, r.Reason))
	}
	for _, i := range r.Ignored {
		b.WriteString(st.Paragraph("  ", "    ", plan.Faint, fmt.Sprintf("set aside: %s: %s", i.ID, i.Reason)))
	}
	return b.String()
}

// findingText is a finding in a few lines: what it is, how bad, where it is and
// what mends it.
func findingText(f vulnerability.Finding) string {
	text := f.ID
	if len(f.Aliases) > 0 {
		text += " (" + strings.Join(f.Aliases, ", ") + ")"
	}
	if f.Severity != vulnerability.SeverityUnknown {
		text += ", " + string(f.Severity)
	}
	if f.Source == vulnerability.SourceComponent {
		text += ", " + cmp.Or(after("fixed in ", f.FixedIn), "no fix known")
	} else {
		what := f.Module
		if f.Source == vulnerability.SourceStdlib {
			what = "Go"
		}
		text += fmt.Sprintf(", %s %s in %s, %s", what, f.Version, filepath.Base(f.Binary), cmp.Or(after("fixed in ", f.ModuleFixedIn), "no fix known"))
	}
	if f.Use == vulnerability.UseNotProved {
		text += " (module present, use not proved)"
	}
	if f.Summary != "" {
		text += ": " + f.Summary
	}
	if !f.Reviewed {
		text += " (the record is not reviewed)"
	}
	return text
}

func tone(s vulnerability.Severity) plan.Tone {
	if s == vulnerability.SeverityCritical || s == vulnerability.SeverityHigh {
		return plan.Red
	}
	return plan.Default
}

func after(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// plural counts things; a word that ends in "it" gets "y" or "ies".
func plural(n int, what string) string {
	one, many := what, what+"s"
	if strings.HasSuffix(what, "bilit") {
		one, many = what+"y", what+"ies"
	}
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// age says how long ago something was, in the unit that fits.
func age(d time.Duration) string {
	switch {
	case d < 2*time.Hour:
		return plural(int(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return plural(int(d/time.Hour), "hour")
	}
	return plural(int(d/(24*time.Hour)), "day")
}
