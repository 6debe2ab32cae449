package health

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"
)

// What a component answers on its metrics page.
func FuzzFindMetric(f *testing.F) {
	f.Add([]byte("# TYPE x_build_info gauge\nx_build_info{version=\"1.2.3\",branch=\"HEAD\"} 1\n"), "x_build_info|up")
	f.Add([]byte("vm_app_version{short_version=\"v1.102.1\", version=\"victoria-metrics\"} 1"), "vm_app_version")
	f.Add([]byte("x\nx\t1\nx 2"), "x")
	f.Add([]byte{0, 0xff, '\n'}, "")
	f.Fuzz(func(t *testing.T, body []byte, name string) {
		line, ok := findMetric(body, name)
		if ok && !strings.Contains(string(body), line) {
			t.Fatalf("%q is not in it", line)
		}
		for _, one := range strings.Split(name, "|") {
			_ = versionLabel(one, line)
		}
	})
}

// What a query API answers.
func FuzzSumSamples(f *testing.F) {
	for _, s := range []string{
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"2.5"]},{"value":[1,"NaN"]}]}}`,
		`{"status":"success","data":{"resultType":"scalar","result":[1,"+Inf"]}}`,
		`{"status":"error","error":"parse error"}`,
		`{"status":"success","data":{"resultType":"matrix","result":[]}}`,
		`{"status":"success","data":{"resultType":"vector","result":[{"value":[1,2]}]}}`,
		`{"status":"success","data":{"resultType":"vector","result":[{"value":null}]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		sum, n, err := sumSamples(body)
		if err == nil && n == 0 && sum != 0 || err == nil && n < 0 {
			t.Fatalf("%v of %d samples", sum, n)
		}
		_ = math.IsNaN(sum)
	})
}

// What a functional test's expression makes of an answer.
func FuzzAnswer(f *testing.F) {
	f.Add(".data.activeTargets[] | .health", []byte(`{"data":{"activeTargets":[{"health":"up"},{"health":"down"}]}}`))
	f.Add(".", []byte(`[1e999, null, "x", {"a": [true]}]`))
	f.Add("repeat(.)", []byte("1"))
	f.Add("length", []byte(`"\ud800"`))
	f.Fuzz(func(t *testing.T, expression string, body []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		values, err := query(ctx, expression, body)
		if err == nil && len(values) > 10_000 {
			t.Fatalf("%d values", len(values))
		}
	})
}
