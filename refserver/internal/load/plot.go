package load

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// Line is a server's curve in a plot: a point for each number of connections.
type Line struct {
	Name   string
	Points []Point
}

// Point is what a server did at one number of connections.
type Point struct {
	Connections int
	PerSecond   float64
	P50, P99    float64 // milliseconds
}

// The plot's measures in pixels.
const (
	plotWidth, plotHeight   = 760, 460
	plotLeft, plotRight     = 70, 170
	plotTop, plotBottom     = 40, 60
	innerWidth, innerHeight = plotWidth - plotLeft - plotRight, plotHeight - plotTop - plotBottom
	textStyle               = `font-family="sans-serif" font-size="12" fill="#333"`
)

// colors are told apart also by those who see few.
func colors() []string {
	return []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#333333"}
}

// axis is a range of values, shown by their logarithms over whole powers of ten.
type axis struct{ low, high float64 }

func axisOf(values []float64) axis {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		low, high = min(low, v), max(high, v)
	}
	a := axis{math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))}
	if a.high <= a.low {
		a.high = a.low + 1
	}
	return a
}

// at is where a value lies, from 0 to 1.
func (a axis) at(v float64) float64 { return (math.Log10(v) - a.low) / (a.high - a.low) }

// Plot writes an SVG of latency against load: for each server the median, and in
// dashes the 99th percentile, with the number of connections at each point.
func Plot(w io.Writer, title string, lines []Line) error {
	var x, y []float64
	for _, l := range lines {
		for _, p := range l.Points {
			if p.PerSecond <= 0 || p.P50 <= 0 || p.P99 <= 0 {
				return fmt.Errorf("plot: a point of %q has no place on a logarithmic axis", l.Name)
			}
			x, y = append(x, p.PerSecond), append(y, p.P50, p.P99)
		}
	}
	if len(x) == 0 {
		return fmt.Errorf("plot: there is nothing to show")
	}
	p := plot{x: axisOf(x), y: axisOf(y)}
	p.frame(title)
	for i, l := range lines {
		p.line(i, l)
	}
	p.b.WriteString("</svg>\n")
	_, err := io.WriteString(w, p.b.String())
	return err
}

type plot struct {
	x, y axis
	b    strings.Builder
}

func (p *plot) add(format string, args ...any) { fmt.Fprintf(&p.b, format+"\n", args...) }

func (p *plot) px(v float64) float64 { return plotLeft + p.x.at(v)*innerWidth }
func (p *plot) py(v float64) float64 { return plotTop + (1-p.y.at(v))*innerHeight }

func (p *plot) frame(title string) {
	p.add(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d">`, plotWidth, plotHeight)
	p.add(`<rect width="100%%" height="100%%" fill="#fff"/>`)
	p.add(`<text x="%d" y="22" %s font-weight="bold">%s</text>`, plotLeft, textStyle, html.EscapeString(title))
	for e := p.x.low; e <= p.x.high; e++ {
		x := p.px(math.Pow(10, e))
		p.add(`<path d="M%.1f %dV%d" stroke="#bbb"/>`, x, plotTop, plotTop+innerHeight)
		p.add(`<text x="%.1f" y="%d" text-anchor="middle" %s>%s</text>`, x, plotTop+innerHeight+18, textStyle, power(e))
	}
	for e := p.y.low; e <= p.y.high; e++ {
		y := p.py(math.Pow(10, e))
		p.add(`<path d="M%d %.1fH%d" stroke="#bbb"/>`, plotLeft, y, plotLeft+innerWidth)
		p.add(`<text x="%d" y="%.1f" text-anchor="end" %s>%s ms</text>`, plotLeft-6, y+4, textStyle, power(e))
	}
	p.add(`<text x="%d" y="%d" text-anchor="middle" %s>vends per second</text>`, plotLeft+innerWidth/2, plotHeight-14, textStyle)
}

// power writes a power of ten.
func power(e float64) string { return fmt.Sprintf("%.*f", int(max(0, -e)), math.Pow(10, e)) }

func (p *plot) line(i int, l Line) {
	color := colors()[i%len(colors())]
	for _, kind := range []struct {
		name, dash string
		of         func(Point) float64
	}{
		{"p50", "", func(q Point) float64 { return q.P50 }},
		{"p99", ` stroke-dasharray="5 4"`, func(q Point) float64 { return q.P99 }},
	} {
		var path strings.Builder
		for n, q := range l.Points {
			step := "L"
			if n == 0 {
				step = "M"
			}
			x, y := p.px(q.PerSecond), p.py(kind.of(q))
			fmt.Fprintf(&path, "%s%.1f %.1f", step, x, y)
			p.add(`<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`, x, y, color)
			if kind.dash == "" {
				p.add(`<text x="%.1f" y="%.1f" %s>%d</text>`, x+5, y+14, textStyle, q.Connections)
			}
		}
		p.add(`<path d="%s" fill="none" stroke="%s" stroke-width="1.5"%s/>`, path.String(), color, kind.dash)
		y := plotTop + 10 + float64(i)*38
		if kind.dash != "" {
			y += 16
		}
		x := plotLeft + innerWidth + 14
		p.add(`<path d="M%d %.1fh22" stroke="%s" stroke-width="1.5"%s/>`, x, y, color, kind.dash)
		p.add(`<text x="%d" y="%.1f" %s>%s %s</text>`, x+28, y+4, textStyle, html.EscapeString(l.Name), kind.name)
	}
}
