package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// cause names why a release, or all newer releases, cannot be gone to.
type cause string

const (
	causeNone      cause = ""
	causeNewest    cause = "newest"    // nothing newer is published
	causeExcluded  cause = "excluded"  // not ours to upgrade
	causeAmiss     cause = "amiss"     // what is installed is broken
	causeUpstream  cause = "upstream"  // upstream unknown
	causeTarget    cause = "target"    // beyond --target, or the kind of upgrade that its policy allows
	causeAsset     cause = "asset"     // nothing to download for this system
	causeBlacklist cause = "blacklist" // known broken
	causeHold      cause = "hold"      // a person's hold or pin
	causePolicy    cause = "policy"    // the rules of unattended runs
	causeFailed    cause = "failed"    // failed on this host
	causePath      cause = "path"      // a stepping stone is missing
	causeOneWay    cause = "one-way"   // no way back
	causeRule      cause = "rule"      // does not fit with the others
	causeInput     cause = "input"     // a mistake in what was asked for
)

// action is what `check` prints for a component that stays because of this.
func (c cause) action() Action {
	switch c {
	case causeNone:
		return ActionUpgrade
	case causeNewest, causeExcluded, causeUpstream:
		return ActionSkip
	case causeTarget, causeHold, causePolicy, causeFailed:
		return ActionHold
	}
	return ActionBlocked
}

// verdict is a cause with its words for people; the zero verdict lets pass.
type verdict struct {
	cause  cause
	reason string
}

func (v verdict) passes() bool { return v.cause == causeNone }

// option is a release that nothing but the other components, stepping stones and
// doors speaks against.
type option struct {
	release component.Release
	asset   string
	bytes   int64
	failed  verdict // it failed on this host
	lifted  string  // why it may be gone to in spite of a policy or hold; "" where nothing speaks against it
	stone   bool    // it may only be passed through
}

// candidate is what is known of one component before the others are looked at.
type candidate struct {
	Installed
	name     string
	selected bool
	pin      component.Version   // zero when none was named
	forced   bool                // pinned with --force: matrix and blacklist are set aside
	listed   []component.Release // all, newest version first
	stable   []component.Release // without pre-releases, newest version first
	ladder   *ladder             // where it can go
	wanted   component.Version   // what it would go to if nothing stood in the way
	staying  verdict             // why it can go nowhere
	note     string              // why the best it can go to is not the newest there is; may be empty
	err      error               // what is wrong with the pin
}

// gather prepares each component for itself, sorted by name. It returns the
// names that were asked for and are not installed, sorted.
func gather(in Input) (cands []*candidate, unknown []string) {
	asked := map[string]bool{}
	for _, n := range in.Selected {
		asked[n] = true
	}
	for n := range in.Pins {
		asked[n] = true
	}
	all := len(asked) == 0
	for _, inst := range in.Installed {
		c := &candidate{Installed: inst, name: inst.Component.Name}
		c.selected = all || asked[c.name]
		c.pin = in.Pins[c.name]
		c.forced = in.Force && !c.pin.IsZero()
		c.sortReleases()
		cands = append(cands, c)
	}
	slices.SortFunc(cands, func(a, b *candidate) int {
		return cmp.Or(strings.Compare(a.name, b.name), a.Current.Compare(b.Current))
	})
	ranges := ranges(in)
	for _, c := range cands {
		delete(asked, c.name)
		c.ladder = newLadder(in, c)
		if c.selected {
			c.consider(in, ranges[c.name])
		} else {
			c.wanted = c.Current
		}
	}
	for n := range asked {
		unknown = append(unknown, n)
	}
	slices.Sort(unknown)
	return cands, unknown
}

func (c *candidate) sortReleases() {
	c.listed = slices.Clone(c.Releases)
	slices.SortStableFunc(c.listed, func(a, b component.Release) int {
		return cmp.Or(b.Version.Compare(a.Version), strings.Compare(b.Version.String(), a.Version.String()),
			strings.Compare(a.Tag, b.Tag), strings.Compare(a.NotesURL, b.NotesURL))
	})
	for _, r := range c.listed {
		if !r.Version.IsZero() && !r.Version.Prerelease() && (!r.Prerelease || c.Component.Source.AcceptPrereleaseFlag) {
			c.stable = append(c.stable, r)
		}
	}
}

// latest is the newest stable release, whatever stands in its way.
func (c *candidate) latest() (component.Release, bool) {
	if len(c.stable) == 0 {
		return component.Release{}, false
	}
	return c.stable[0], true
}

// behind counts the stable versions newer than the installed one.
func (c *candidate) behind() int {
	n := 0
	var last component.Version
	for _, r := range c.stable {
		if c.Current.IsZero() || !c.Current.Less(r.Version) {
			break
		}
		if !r.Version.Equal(last) {
			n++
		}
		last = r.Version
	}
	return n
}

// consider fills in the ladder, or the reason for staying.
func (c *candidate) consider(in Input, ranges []Range) {
	if !c.pin.IsZero() {
		c.considerPin(in, ranges)
		return
	}
	newest, known := c.latest()
	c.wanted = c.Current
	if known && c.Current.Less(newest.Version) {
		c.wanted = newest.Version
	}
	if c.staying = c.movable(); !c.staying.passes() {
		return
	}
	if !c.Current.Less(newest.Version) {
		c.staying = verdict{causeNewest, "up to date"}
		if newest.Version.Less(c.Current) {
			c.staying.reason = fmt.Sprintf("newer than upstream's newest release %s", newest.Version)
		}
		return
	}
	c.choose(in, ranges)
}

// movable says whether this program can change the component at all.
func (c *candidate) movable() verdict {
	switch {
	case c.Excluded != "":
		return verdict{causeExcluded, c.Excluded}
	case c.Amiss != "":
		return verdict{causeAmiss, c.Amiss}
	case c.Component.Source.Type == component.SourcePackage:
		return verdict{causeExcluded, "managed by the distribution's package manager; upgrade it there"}
	case c.Current.IsZero():
		return verdict{causeExcluded, "its installed version is not known"}
	case len(c.listed) == 0 && c.Err != nil:
		return verdict{causeUpstream, "upstream could not be asked: " + c.Err.Error()}
	case len(c.stable) == 0 && c.pin.IsZero():
		return verdict{causeUpstream, "upstream lists no stable release"}
	}
	return verdict{}
}

// choose builds the ladder from the releases newer than the installed one.
func (c *candidate) choose(in Input, ranges []Range) {
	var (
		usable []option // what nothing but a failure here speaks against, newest first
		why    verdict  // of the newest release that is not usable, those beyond the target last
		whyOf  component.Version
		fitted bool // the newest usable release has been met
		young  = c.youngEnough(in)
	)
	for _, r := range c.stable {
		if !c.Current.Less(r.Version) {
			break
		}
		o, v := c.judge(in, r)
		if !young.passes() {
			v = young
		}
		switch {
		case v.passes():
			o.failed = c.failedHere(r.Version)
			usable, fitted = append(usable, o), true
		case fitted:
		case why.passes(), why.cause == causeTarget && v.cause != causeTarget:
			why, whyOf = v, r.Version
		}
	}
	usable = c.urgent(in, usable)
	if len(usable) == 0 {
		c.staying, c.wanted = why, whyOf
		return
	}
	// A version that failed is held until a newer one appears; older ones are no
	// way around it (docs/reference.md, promise 7).
	top := usable[slices.IndexFunc(usable, func(o option) bool { return !o.stone })]
	c.wanted = top.release.Version
	if !c.wanted.Less(whyOf) {
		why = verdict{} // what spoke against it was lifted
	}
	if c.staying = top.failed; !c.staying.passes() {
		return
	}
	var floor component.Version
	for _, o := range usable {
		if !o.failed.passes() {
			floor = o.release.Version
			break
		}
	}
	c.ladder.build(usable, ranges, floor)
	c.climb(why.reason)
}

// climb notes how far the ladder goes; skipped is why it does not hold the
// newest release.
func (c *candidate) climb(skipped string) {
	last := len(c.ladder.nodes) - 1
	switch c.ladder.top() {
	case 0:
		c.staying = c.ladder.refusal(last)
	case last:
		c.note = skipped
	default:
		c.note = c.ladder.refusal(last).reason
	}
}

// judge applies what concerns one release alone.
func (c *candidate) judge(in Input, r component.Release) (option, verdict) {
	v := r.Version
	if !in.Target.admits(c.Current, v) {
		return option{}, verdict{causeTarget, fmt.Sprintf("%s is a %s upgrade, beyond --target=%s", v, component.BumpBetween(c.Current, v), in.Target)}
	}
	o, verd := c.download(in, r)
	if !verd.passes() {
		return o, verd
	}
	if verd = c.blacklisted(in, v); !verd.passes() {
		return o, verd
	}
	if verd = c.held(in, v); !verd.passes() {
		return o, verd
	}
	if verd = c.outside(in, v); !verd.passes() {
		return o, verd
	}
	return o, c.permitted(in, r)
}

// download finds the asset for this system, by name or pattern as package
// artifact will. A release whose files upstream does not list is taken to have
// it: the download tells.
func (c *candidate) download(in Input, r component.Release) (option, verdict) {
	o := option{release: r}
	if _, ok := c.Component.For(r.Version).ArchName(in.Arch); !ok {
		return o, verdict{causeAsset, fmt.Sprintf("%s %s: upstream publishes nothing for %s/%s", c.name, r.Version, in.OS, in.Arch)}
	}
	o.asset = c.Component.Vars(in.Root, in.OS, in.Arch, r).Asset
	if len(r.Assets) == 0 || c.Component.Asset == "" {
		return o, verdict{}
	}
	found := r.MatchAssets(o.asset)
	switch len(found) {
	case 0:
		return o, verdict{causeAsset, fmt.Sprintf("%s has no file %s for %s/%s", r.Version, o.asset, in.OS, in.Arch)}
	case 1:
	default:
		return o, verdict{causeAsset, fmt.Sprintf("%s has %d files that match %s for %s/%s", r.Version, len(found), o.asset, in.OS, in.Arch)}
	}
	o.asset, o.bytes = found[0].Name, found[0].Size
	return o, verdict{}
}

func (c *candidate) blacklisted(in Input, v component.Version) verdict {
	var reasons []string
	for _, b := range in.Blacklist {
		if b.Component == c.name && contains(b.Range, v) {
			reasons = append(reasons, fmt.Sprintf("%s is blacklisted", v)+because(b.Reason, b.Reference))
		}
	}
	if len(reasons) == 0 {
		return verdict{}
	}
	return verdict{causeBlacklist, slices.Min(reasons)}
}

// held says which hold keeps the component from a version. A hold of versions
// among which the installed one is keeps it there: whoever holds what is installed
// means it to stay.
func (c *candidate) held(in Input, v component.Version) verdict {
	var reasons []string
	for _, h := range in.Holds {
		stays := !c.Current.IsZero() && h.Range != nil && contains(h.Range, c.Current)
		if h.Component != c.name || !stays && !contains(h.Range, v) || !h.Until.IsZero() && !in.Now.Before(h.Until) {
			continue
		}
		text := fmt.Sprintf("%s is on hold", v)
		if stays {
			text = fmt.Sprintf("it is on hold at %s", c.Current)
		}
		if !h.Until.IsZero() {
			text += " until " + h.Until.Format(time.DateOnly)
		}
		reasons = append(reasons, text+because(h.Reason, ""))
	}
	if len(reasons) == 0 {
		return verdict{}
	}
	return verdict{causeHold, slices.Min(reasons)}
}

// failedHere looks the version up among those that failed on this host; the
// newest failure is told.
func (c *candidate) failedHere(v component.Version) verdict {
	var last *Failed
	for i, f := range c.Failed {
		if f.Version.Equal(v) && (last == nil || cmp.Or(last.At.Compare(f.At), strings.Compare(last.Reason, f.Reason)) < 0) {
			last = &c.Failed[i]
		}
	}
	if last == nil {
		return verdict{}
	}
	text := fmt.Sprintf("%s failed here", v)
	if last.TakenBack {
		text = fmt.Sprintf("%s was rolled back here by hand", v)
	}
	if !last.At.IsZero() {
		text += " on " + last.At.Format(time.DateOnly)
	}
	return verdict{causeFailed, text + because(last.Reason, "") + fmt.Sprintf("; name it with --component=%s@%s to try again", c.name, v)}
}

// considerPin takes exactly the version a person named. That beats holds, the
// target and the memory of failures; --force beats blacklist and matrix too.
func (c *candidate) considerPin(in Input, ranges []Range) {
	c.wanted = c.pin
	if c.staying = c.movable(); !c.staying.passes() {
		return
	}
	if c.pin.Equal(c.Current) {
		c.staying = verdict{causeNewest, fmt.Sprintf("already at %s", c.Current)}
		return
	}
	if c.pin.Less(c.Current) && !in.Force {
		c.fail(&DowngradeError{Component: c.name, Current: c.Current, Wanted: c.pin})
		return
	}
	var found []component.Release
	for _, r := range c.listed {
		if r.Version.Equal(c.pin) {
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		c.fail(&UnknownVersionError{Component: c.name, Version: c.pin, Nearest: nearestVersions(c.pin, c.listed)})
		return
	}
	r := found[0]
	for _, f := range found { // the same precedence, told apart by build metadata
		if f.Version.String() == c.pin.String() {
			r = f
		}
	}
	o, v := c.allowed(in, r, in.Force)
	if !v.passes() {
		c.staying = v
		return
	}
	if in.Force {
		c.ladder.nodes = append(c.ladder.nodes, node{option: o, version: r.Version, at: c.ladder.index(r.Version), goal: true, steps: 1})
		c.ladder.open = []bitset{{1 << 1}, {0}}
		return
	}
	usable := []option{o}
	for _, r := range c.stable { // the stepping stones
		if o, v := c.allowed(in, r, false); c.Current.Less(r.Version) && r.Version.Less(c.pin) && v.passes() {
			o.failed = c.failedHere(r.Version)
			usable = append(usable, o)
		}
	}
	c.ladder.build(usable, ranges, c.ladder.below(c.pin))
	c.climb("")
}

// allowed judges a release that a person named, or one on the way to it: holds,
// targets and policies do not count.
func (c *candidate) allowed(in Input, r component.Release, force bool) (option, verdict) {
	o, v := c.download(in, r)
	if v.passes() && !force {
		v = c.blacklisted(in, r.Version)
	}
	return o, v
}

func (c *candidate) fail(err error) {
	c.err = err
	c.staying = verdict{causeInput, err.Error()}
}

// because appends a reason and a reference, when there are any.
func because(reason, reference string) string {
	var s string
	if reason != "" {
		s = ": " + reason
	}
	if reference != "" {
		s += " (" + reference + ")"
	}
	return s
}
