package health

import "regexp"

var (
	// levelField is the level that a line in logfmt or JSON gives itself.
	levelField = regexp.MustCompile(`(?i)(?:^|[\s,{])"?(?:level|lvl|loglevel|log\.level|severity)"?\s*[=:]\s*"?([a-z]+)`)
	badLevel   = regexp.MustCompile(`(?i)^(?:e(?:rr|ror|rror|merg)|emergency|fatal|d?panic|crit|critical|alert|severe)$`)
	goodLevel  = regexp.MustCompile(`(?i)^(?:trace|debug|dbug|info|information|notice|warn|warning)$`)

	// goodStart is a level below error at the start of a plain line: after a time,
	// in brackets, before a colon, in capitals, or klog's letter.
	goodStart = regexp.MustCompile(`^(?:\S*\d\S*\s+){1,2}\[?(?i:trace|debug|info|notice|warn|warning)\]?[\s:|]` +
		`|^\[(?i:trace|debug|info|notice|warn|warning)\]|^(?i:trace|debug|info|notice|warn|warning):` +
		`|^(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING)\s|^[IW]\d{4} \d\d:\d\d:`)
	badStart = regexp.MustCompile(`^[EF]\d{4} \d\d:\d\d:`) // klog

	// harmless is where the words stand for no error: none of them, a field without
	// a value, a part of a longer name, such as error.log, on-error or error_rate.
	harmless = regexp.MustCompile(`(?i)\b(?:0|no|zero|without|any)\s+errors?\b` +
		`|\b(?:errors?|fatal|panics?)["']?(?:=(?:["']?(?:0|null|nil|none|false|<nil>)["']?)?(?:[\s,;}\])]|$)` +
		`|\s*[=:]\s*(?:["']?(?:0|null|nil|none|false|<nil>)["']?(?:[,;}\])]|$)|""|''|\[\]|\{\}))` +
		`|[\w./-]*[\w./-](?:[./_-])(?:errors?|fatal|panics?)\b|\b(?:errors?|fatal|panics?)[./_-]\w[\w./-]*`)
	// badWords are those of specification section 4.
	badWords = regexp.MustCompile(`(?i)\b(?:errors?|fatal|panic)\b|\bpanicked at\b`)
)

// saysError reports whether a line of a log tells of an error: by the level it
// gives itself, and where it gives none by its words.
func saysError(line string) bool {
	for _, m := range levelField.FindAllStringSubmatch(line, -1) {
		switch {
		case badLevel.MatchString(m[1]):
			return true
		case goodLevel.MatchString(m[1]):
			return false
		}
	}
	switch {
	case badStart.MatchString(line):
		return true
	case goodStart.MatchString(line):
		return false
	}
	return badWords.MatchString(harmless.ReplaceAllString(line, " "))
}
