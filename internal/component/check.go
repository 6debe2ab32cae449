package component

// CheckStatus is the outcome of one check.
type CheckStatus string

// The outcomes of a check, as docs/reference.md names them.
const (
	CheckOK      CheckStatus = "ok"
	CheckWarn    CheckStatus = "warn"
	CheckFail    CheckStatus = "fail"
	CheckSkipped CheckStatus = "skipped"
)

// Check is one thing looked at, before an upgrade or after it.
type Check struct {
	Name      string      `json:"name"`
	Component string      `json:"component"` // empty when it concerns the host
	Status    CheckStatus `json:"status"`
	Detail    string      `json:"detail"`
	Next      string      `json:"next,omitempty"` // command to type when it is not ok
}
