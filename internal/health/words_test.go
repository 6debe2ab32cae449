package health

import "testing"

func TestSaysError(t *testing.T) {
	for want, lines := range map[bool][]string{
		true: {
			"ERROR could not open the database",
			"error: no such file", "error: null pointer", "error: 0 bytes were read",
			"2024/01/05 10:00:00 [error] 12#12: *1 connect() failed",
			"2024-01-05T10:00:00.000Z\terror\tVictoriaMetrics/lib/storage/storage.go:12\tcannot open",
			"2024-01-05T10:00:00.123456Z ERROR sink{component_id=loki}: vector::sinks: failed",
			`ts=2024-01-05T10:00:00Z caller=main.go:1 level=error msg="cannot read"`,
			`time="2024-01-05" level="fatal" msg=x`,
			`t=2024 lvl=eror msg=x`,
			`logger=x level=crit`,
			`{"ts":1,"level":"error","msg":"x"}`,
			`{"severity": "CRITICAL", "message": "x"}`,
			"panic: runtime error: invalid memory address",
			"thread 'main' panicked at src/main.rs:4:5",
			"fatal error: all goroutines are asleep",
			"E0105 10:00:00.000000       1 main.go:10] cannot list",
			"Fatal: bad configuration",
			"3 errors occurred:",
			`msg="done" errors=3`,
			`error="connection refused"`,
			`{"error":"connection refused"}`,
			"[ALERT] (12) : Fatal errors found in configuration.",
			"An error occurred.",
		},
		false: {
			"",
			"0 errors", "no errors found", "finished without errors", "checked 4 files, 0 errors",
			"errors=0", "errors: 0", "error=null", `error=""`, "error=<nil> took=3ms", `{"msg":"done","error":null}`, `{"error":"","n":1}`, "error= next=1", "error=none",
			"error_rate=0.5", "errors_total 12", "--log.error-file=/var/log/error.log", "on-error: continue", "a non-fatal thing", "loading /etc/nginx/error.conf",
			"a panicked look", "terror", "mirrors",
			`level=info msg="error budget is fine"`, `level=warn err="retrying" msg="error sending"`, `{"level":"info","msg":"fatal?"}`,
			"2024-01-05T10:00:00.000Z\tinfo\tlib/x.go:1\tno error here, an error page is served",
			"2024-01-05T10:00:00Z  INFO vector::app: error reporting is off",
			"2024/01/05 10:00:00 [notice] 1#1: error pages are cached",
			"[WARNING] (12) : a fatal thing may follow",
			"I0105 10:00:00.000000       1 main.go:10] the last error was long ago",
			"INFO error handling is ready",
		},
	} {
		for _, line := range lines {
			if got := saysError(line); got != want {
				t.Errorf("%q: %v, want %v", line, got, want)
			}
		}
	}
}

func FuzzSaysError(f *testing.F) {
	f.Add("error: x")
	f.Add(`{"level":"info","error":null}`)
	f.Fuzz(func(t *testing.T, line string) {
		if saysError(line) && saysError("level=info "+line) && levelField.FindStringSubmatch("level=info "+line) == nil {
			t.Errorf("%q: its level does not count", line)
		}
	})
}
