package cli

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"
)

// writeCSV writes a header and rows as RFC 4180 has them, lines ended by CR LF.
func writeCSV(w io.Writer, header []string, rows [][]string) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	if err := out.Write(header); err != nil {
		return err
	}
	return out.WriteAll(rows)
}

// csvText is a cell of text. A spreadsheet takes what begins with one of these
// characters for a formula; behind an apostrophe it shows it as it is.
func csvText(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r\n", rune(s[0])) {
		return "'" + s
	}
	return s
}

func csvNumber(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func csvTime(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func csvBool(b *bool) string {
	if b == nil {
		return ""
	}
	return strconv.FormatBool(*b)
}
