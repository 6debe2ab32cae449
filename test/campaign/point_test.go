package campaign

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/observability-upgrade/observability-upgrade/test/campaign/modeldisk"
)

// A point is one thing that was tried: a scenario, and what happened to it. Its text
// form is that of CAMPAIGN_POINT:
//
//	SCENARIO>EPISODE[>EPISODE…]
//
// The first episode is the scenario's operation, each further one a recovery; after
// the last, a recovery runs undisturbed. An episode is a fault, a crash, or a fault
// and a crash with "|" between them; an empty one is undisturbed.
//
//	EIO@34       the 34th call that changes something and can fail so fails so, once
//	EIO-any@34   of all calls, reading and looking up as well
//	ENOSPC@34+   and all that follow, until the episode is over
//	timeout@3    of the service manager's
//	kill@57      the process is killed after 57 operations of the disk
//	kill@57#9    and the write in flight is there in part; 9 is the seed
//	nothing@57#2 the power is cut; see modeldisk.Loss for the word, 2 is the seed
//	nothing@57#2b and services start at boot, before the recovery
type point struct {
	scenario string
	episodes []episode
}

type episode struct {
	fault *fault
	crash *crash
}

// fault makes the at-th of something fail.
type fault struct {
	what  string // EIO, ENOSPC, EACCES, EROFS of calls that change something; EIO-any, EACCES-any of all; timeout
	at    int
	stays bool
}

// crash ends an episode after n operations of the disk.
type crash struct {
	loss modeldisk.Loss
	n    int
	seed uint64
	boot bool
}

var errnos = map[string]syscall.Errno{"EIO": syscall.EIO, "EIO-any": syscall.EIO, "EACCES-any": syscall.EACCES, "ENOSPC": syscall.ENOSPC, "EACCES": syscall.EACCES, "EROFS": syscall.EROFS}

func (f *fault) String() string {
	return fmt.Sprintf("%s@%d%s", f.what, f.at, map[bool]string{true: "+"}[f.stays])
}

func (c *crash) String() string {
	text := fmt.Sprintf("%s@%d", c.loss, c.n)
	if c.loss != modeldisk.Kill || c.seed != 0 {
		text += fmt.Sprintf("#%d", c.seed)
	}
	return text + map[bool]string{true: "b"}[c.boot]
}

func (e episode) String() string {
	var parts []string
	if e.fault != nil {
		parts = append(parts, e.fault.String())
	}
	if e.crash != nil {
		parts = append(parts, e.crash.String())
	}
	return strings.Join(parts, "|")
}

func (p point) String() string {
	text := p.scenario
	for _, e := range p.episodes {
		text += ">" + e.String()
	}
	return text
}

// mode is the row of the table that a point counts in.
func (p point) mode() string {
	crashes, faults, last := 0, 0, ""
	for _, e := range p.episodes {
		if e.fault != nil {
			faults++
			last = e.fault.what
			if e.fault.stays {
				last += " until repaired"
			}
		}
		if e.crash != nil {
			crashes++
		}
	}
	switch {
	case faults > 0 && crashes > 0 || faults > 1:
		return "error and crash"
	case faults > 0:
		return last
	case crashes > 2:
		return "third crash"
	case crashes > 1:
		return "second crash"
	case p.episodes[0].crash.loss == modeldisk.Kill:
		return "kill"
	}
	return "power cut"
}

var (
	faultText = regexp.MustCompile(`^(EIO|EIO-any|ENOSPC|EACCES|EACCES-any|EROFS|timeout)@(\d+)(\+?)$`)
	crashText = regexp.MustCompile(`^(kill|nothing|nodata|ordered|anything)@(\d+)(?:#(\d+))?(b?)$`)
)

func parsePoint(text string) (point, error) {
	parts := strings.Split(text, ">")
	p := point{scenario: parts[0]}
	for _, part := range parts[1:] {
		var e episode
		for _, one := range strings.Split(part, "|") {
			if m := faultText.FindStringSubmatch(one); m != nil {
				at, err := strconv.Atoi(m[2])
				if err != nil {
					return p, err
				}
				e.fault = &fault{what: m[1], at: at, stays: m[3] != ""}
				continue
			}
			m := crashText.FindStringSubmatch(one)
			if m == nil && one != "" {
				return p, fmt.Errorf("point %q: %q is neither a fault (EIO@34, ENOSPC@34+, timeout@3) nor a crash (kill@57, nothing@57#2b)", text, one)
			}
			if m == nil {
				continue
			}
			n, err := strconv.Atoi(m[2])
			if err != nil {
				return p, err
			}
			e.crash = &crash{loss: modeldisk.Loss(m[1]), n: n, boot: m[4] != ""}
			if m[3] != "" {
				if e.crash.seed, err = strconv.ParseUint(m[3], 10, 64); err != nil {
					return p, err
				}
			}
		}
		p.episodes = append(p.episodes, e)
	}
	if len(p.episodes) == 0 {
		return p, fmt.Errorf("point %q: expected SCENARIO>EPISODE", text)
	}
	return p, nil
}
