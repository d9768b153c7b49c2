package streams

import (
	"encoding/json"
	"strings"
	"testing"

	"quic_dist/internal/lanes"
)

// The qlog file of the connection that follows says at both sides what it follows, and how long the pause was.
func TestQlogOfAResumption(t *testing.T) {
	cfg := resumable(t, lanes.Single, 0, 1)
	b, at := listening(t, cfg)
	a := start(t, cfg)
	dirs := map[string]*running{t.TempDir(): a, t.TempDir(): b}
	for dir, e := range dirs {
		set(t, e, "", TraceSetting{QlogDir: dir})
	}
	r := newNAT(t, at, resetKeyOf(b))
	dialled, _ := pair(t, a, b, r.at())
	outage(t, r, dialled)
	r.block(false)
	whole(dialled, nil)
	a.stop(t)
	b.stop(t)
	for dir := range dirs {
		resumed, closed := 0, 0
		for name, text := range files(t, dir) {
			for record := range strings.SplitSeq(text, "\x1e") {
				var event struct {
					Name string
					Data struct {
						Connection int
						Cause      string
						Pause      float64 `json:"pause_ms"`
						Again      *uint64 `json:"sent_again"`
					}
				}
				if record == "" {
					continue
				}
				if err := json.Unmarshal([]byte(record), &event); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				switch d := event.Data; {
				case strings.HasSuffix(event.Name, "connection_closed"):
					closed++
				case event.Name == "erldist:connection_resumed":
					resumed++
					if d.Connection != 1 || d.Cause == "" || d.Pause <= 0 || d.Again == nil {
						t.Errorf("%s", record)
					}
					t.Log(record)
				}
			}
		}
		if resumed != 1 || closed < 2 {
			t.Errorf("%d resumptions and %d ends are recorded", resumed, closed)
		}
	}
}
