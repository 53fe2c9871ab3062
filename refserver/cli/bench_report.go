package cli

import (
	"fmt"
	"strings"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/load"
)

// benchReport is what was measured, as JSON.
type benchReport struct {
	Machine   string       `json:"machine"`
	Database  string       `json:"database"`
	SyncP50   float64      `json:"fsyncP50Ms"`
	Rounds    int          `json:"rounds"`
	Seconds   float64      `json:"secondsEach"`
	Databases []*benchMade `json:"databases"`
	Loads     []benchLoad  `json:"loads"`
}

// benchLoad is one server at one number of connections. What was not measured on
// this system is left out.
type benchLoad struct {
	Server      string       `json:"server"`
	Connections int          `json:"connections"`
	PerSecond   load.Spread  `json:"vendsPerSecond"`
	P50         load.Spread  `json:"p50Ms"`
	P99         load.Spread  `json:"p99Ms"`
	P999        load.Spread  `json:"p999Ms"`
	CPU         *load.Spread `json:"cpuMicroseconds,omitempty"`
	Memory      int64        `json:"memoryBytes,omitempty"`
	OfBare      *load.Spread `json:"ofBare,omitempty"`      // vends/s, round by round
	CPUOfBare   *load.Spread `json:"cpuOfBare,omitempty"`   // round by round
	CostOfFirst *load.Spread `json:"costOfFirst,omitempty"` // time for each vend against the first database's
}

func (b *bench) report() benchReport {
	c := b.command
	r := benchReport{
		Machine: machine(), Database: "sqlite", SyncP50: ms(b.sync.Seconds()), Rounds: c.Rounds, Seconds: c.Duration.Seconds(),
	}
	if strings.HasPrefix(c.Database, "postgres") {
		r.Database = "postgres"
	}
	for _, server := range b.servers {
		if server.made != nil {
			server.made.Idle = server.idle
			r.Databases = append(r.Databases, server.made)
		}
		for _, connections := range c.Connections {
			r.Loads = append(r.Loads, b.load(server, connections))
		}
	}
	return r
}

func ms(seconds float64) float64 { return seconds * 1000 }

func (b *bench) load(server *benchServer, connections int) benchLoad {
	rounds := b.rounds[benchAt{server.name, connections}]
	of := func(value func(load.Sample) float64) load.Spread {
		values := make([]float64, len(rounds))
		for i, s := range rounds {
			values[i] = value(s)
		}
		return load.Of(values)
	}
	against := func(other string, ratio func(mine, theirs load.Sample) float64) *load.Spread {
		values := make([]float64, len(rounds))
		for i, s := range rounds {
			values[i] = ratio(s, b.rounds[benchAt{other, connections}][i])
		}
		spread := load.Of(values)
		return &spread
	}
	l := benchLoad{
		Server: server.name, Connections: connections,
		PerSecond: of(func(s load.Sample) float64 { return s.PerSecond }),
		P50:       of(func(s load.Sample) float64 { return ms(s.P50.Seconds()) }),
		P99:       of(func(s load.Sample) float64 { return ms(s.P99.Seconds()) }),
		P999:      of(func(s load.Sample) float64 { return ms(s.P999.Seconds()) }),
	}
	known := rounds[0].MeasuresProcess
	if known {
		cpu := of(func(s load.Sample) float64 { return float64(s.CPU.Nanoseconds()) / 1000 })
		l.CPU, l.Memory = &cpu, int64(of(func(s load.Sample) float64 { return float64(s.Memory) }).High)
	}
	if server.name == bare {
		return l
	}
	l.OfBare = against(bare, func(mine, theirs load.Sample) float64 { return mine.PerSecond / theirs.PerSecond })
	if known && b.rounds[benchAt{bare, connections}][0].CPU > 0 { // not so short that no tick of its clock fell into it
		l.CPUOfBare = against(bare, func(mine, theirs load.Sample) float64 { return mine.CPU.Seconds() / max(theirs.CPU.Seconds(), 1e-9) })
	}
	if first := b.servers[0].name; server.name != first {
		l.CostOfFirst = against(first, func(mine, theirs load.Sample) float64 { return theirs.PerSecond / mine.PerSecond })
	}
	return l
}

func (r benchReport) title() string {
	return fmt.Sprintf("Latency against load: %s, %s, fsync %.2f ms", r.Database, r.Machine, r.SyncP50)
}

func (r benchReport) lines() []load.Line {
	var lines []load.Line
	for _, l := range r.Loads {
		if len(lines) == 0 || lines[len(lines)-1].Name != l.Server {
			lines = append(lines, load.Line{Name: l.Server})
		}
		line := &lines[len(lines)-1]
		line.Points = append(line.Points, load.Point{Connections: l.Connections, PerSecond: l.PerSecond.Median, P50: l.P50.Median, P99: l.P99.Median})
	}
	return lines
}

// print shows the report to people: medians, with the lowest and the highest in
// parentheses.
func (r benchReport) print(s *session) error {
	err := s.say("machine   %s; fsync of 4 KiB %.2f ms (median)\nmethod    %s, medians of %d rounds of %g s for each server and load, servers in turn\n",
		r.Machine, r.SyncP50, r.Database, r.Rounds, r.Seconds)
	if err != nil {
		return err
	}
	databases := table{titles: []string{"database", "agents", "tools", "grants", "events", "made in", "idle memory"}}
	for _, d := range r.Databases {
		databases.add(d.Name, fmt.Sprint(d.Agents), fmt.Sprint(d.Tools), fmt.Sprint(d.Grants), fmt.Sprint(d.Events), fmt.Sprintf("%.1f s", d.Seconds), mebibytes(d.Idle))
	}
	if err := databases.print(s); err != nil {
		return err
	}
	loads := table{titles: []string{"server", "connections", "vends/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs", "memory", "of bare", "CPU of bare", "cost"}}
	for _, l := range r.Loads {
		loads.add(l.Server, fmt.Sprint(l.Connections), spread(&l.PerSecond, 0), spread(&l.P50, 2), spread(&l.P99, 2), spread(&l.P999, 2),
			spread(l.CPU, 0), mebibytes(l.Memory), percent(l.OfBare), spread(l.CPUOfBare, 2), spread(l.CostOfFirst, 2))
	}
	if err := s.say(""); err != nil {
		return err
	}
	return loads.print(s)
}

func spread(v *load.Spread, digits int) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f (%.*f–%.*f)", digits, v.Median, digits, v.Low, digits, v.High)
}

func percent(v *load.Spread) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f%% (%.0f–%.0f)", 100*v.Median, 100*v.Low, 100*v.High)
}

func mebibytes(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
}
