package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// vulnerabilitiesCommand tells what the report has no room for.
const vulnerabilitiesCommand = "observability-upgrade vulnerabilities"

// vulnerable lists the known vulnerabilities of the installed versions: the
// components' own one by one, those of what they were built from by their number.
// What is not known is said as well, where somebody looked.
func (p *page) vulnerable(list []Candidate) {
	var with []Candidate
	unknown, looked := 0, 0
	for _, c := range list {
		switch {
		case len(c.Vulnerabilities) > 0:
			with = append(with, c)
		case c.Vulnerable == nil:
			unknown++
		}
		if c.Vulnerable != nil || c.VulnerableReason != "" {
			looked++
		}
	}
	if len(with) > 0 {
		p.line("")
		p.line("Known vulnerabilities:")
	}
	for _, c := range with {
		p.line("  - %s %s", c.Name, c.Current)
		built := 0
		for _, v := range c.Vulnerabilities {
			if !v.Own() {
				built++
				continue
			}
			p.wrapped("    - ", "      ", severityColour(v.Severity), v.words()+": "+cmp.Or(v.Summary, "the record has no summary"))
		}
		if built > 0 {
			p.wrapped("    - ", "      ", yellow, fmt.Sprintf("%d in modules that it was built from", built))
		}
		if len(c.Fixes) > 0 {
			p.wrapped("    ", "    ", green, fmt.Sprintf("%s fixes %s", c.Target, strings.Join(c.Fixes, ", ")))
		}
	}
	for _, c := range list {
		if ids := offered(c); len(ids) > 0 {
			version := cmp.Or(c.Target.String(), c.Latest.String())
			p.line("")
			p.wrapped("", "  ", yellow, fmt.Sprintf("%s %s has known vulnerabilities too: %s", c.Name, version, strings.Join(ids, ", ")))
		}
	}
	if unknown > 0 && looked > 0 {
		p.line("")
		p.wrapped("", "  ", "", fmt.Sprintf("Whether there are known vulnerabilities is not known for %d of %s: %s", unknown, count(len(list), "component"), vulnerabilitiesCommand))
	}
}

// offered are the ids of the vulnerabilities of the version that is offered.
func offered(c Candidate) []string {
	var ids []string
	for _, v := range c.Offered {
		ids = append(ids, v.ID)
	}
	slices.Sort(ids)
	return ids
}

func severityColour(severity string) colour {
	if severity == "critical" || severity == "high" {
		return red
	}
	return yellow
}
