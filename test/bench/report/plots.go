package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// A plotKind is one plot of every result.
type plotKind struct {
	name, title string
	has         func(*result) bool
	draw        func(*plot.Plot, *result) error
}

var (
	throughputOfOne   = throughput("1 sender", "send-%s-x1")
	throughputOfEight = throughput("8 senders", "send-%s-x8")
	roundTrips        = plotKind{
		name:  "round-trip",
		title: "Round trip: dot = median, line up to the 99th percentile (less is better)",
		has:   func(r *result) bool { return len(r.measured("round-trip-0", "p50 us")) > 0 },
		draw:  drawRoundTrips,
	}
	bulkRoundTrips = plotKind{
		name: "bulk-round-trip",
		title: "Round trip of an empty message while 1 MB messages flow, as many as the carrier takes:\n" +
			"dot = median, line up to the 99th percentile (less is better)",
		has:  func(r *result) bool { return len(r.measured("bulk-round-trip", "p50 us")) > 0 },
		draw: drawInBulk,
	}
)

// colours can be told apart by those who do not see all of them (Okabe and Ito).
var colours = []color.Color{
	color.RGBA{0x55, 0x55, 0x55, 0xff}, color.RGBA{0xe6, 0x9f, 0x00, 0xff}, color.RGBA{0xd5, 0x5e, 0x00, 0xff},
	color.RGBA{0x00, 0x72, 0xb2, 0xff}, color.RGBA{0x56, 0xb4, 0xe9, 0xff}, color.RGBA{0x00, 0x9e, 0x73, 0xff},
	color.RGBA{0xcc, 0x79, 0xa7, 0xff}, color.RGBA{0xf0, 0xe4, 0x42, 0xff}, color.RGBA{0x00, 0x00, 0x00, 0xff},
}

func (r *result) colour(carrier string) color.Color {
	return colours[slices.Index(r.Carriers, carrier)%len(colours)]
}

func (k plotKind) file(r *result) string {
	return k.name + "-otp" + r.Versions.Release + ".svg"
}

// save writes the plot as an SVG file.
func (k plotKind) save(dir string, r *result) error {
	p := plot.New()
	p.Title.Text = k.title + "\nOTP " + r.Versions.OTP + ", " + r.place()
	p.Title.Padding = vg.Points(8)
	p.Add(plotter.NewGrid())
	p.Legend.Top = true
	p.Legend.Left = true
	p.Legend.Padding = vg.Points(2)
	sans(p)
	if err := k.draw(p, r); err != nil {
		return fmt.Errorf("plot %s: %w", k.name, err)
	}
	image, err := p.WriterTo(8.5*vg.Inch, 5*vg.Inch, "svg")
	if err != nil {
		return err
	}
	var svg bytes.Buffer
	if _, err := image.WriteTo(&svg); err != nil {
		return err
	}
	// A browser without that font would take one with serifs.
	const family = "font-family:Liberation Sans"
	text := bytes.ReplaceAll(svg.Bytes(), []byte(family), []byte(family+",Arial,Helvetica,sans-serif"))
	return os.WriteFile(filepath.Join(dir, k.file(r)), text, 0o666)
}

func sans(p *plot.Plot) {
	for _, f := range []*font.Font{
		&p.Title.TextStyle.Font, &p.Legend.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font,
		&p.X.Tick.Label.Font, &p.Y.Tick.Label.Font,
	} {
		f.Variant = "Sans"
	}
}

func throughput(senders, measure string) plotKind {
	var all []place
	for _, size := range sizes {
		all = append(all, place{math.Log2(size.bytes), size.title, fmt.Sprintf(measure, size.measure), "MB/s"})
	}
	return plotKind{
		name:  "throughput-" + senders[:1],
		title: "Throughput by message size, " + senders + " (more is better)",
		has:   func(r *result) bool { return measuredAny(r, all) },
		draw: func(p *plot.Plot, r *result) error {
			p.X.Label.Text = "message size; the ends of a bar are the slowest and the fastest round"
			p.Y.Label.Text = "MB per second"
			return drawLines(p, r, all)
		},
	}
}

func pings(l wan) plotKind {
	var all []place
	for x, percent := range []string{"10", "25", "50", "75", "90", "95", "99"} {
		all = append(all, place{float64(x), percent + " %", l.Name, "ping p" + percent + " ms"})
	}
	return plotKind{
		name:  "wan-" + l.Name + "-ping",
		title: "Round trip of a small message beside four exchanges of 256 KB (less is better)\n" + l.Title,
		has:   func(r *result) bool { return measuredAny(r, all) },
		draw: func(p *plot.Plot, r *result) error {
			p.X.Label.Text = "so many of the round trips took at most ..."
			p.Y.Label.Text = "milliseconds"
			if err := drawLines(p, r, all); err != nil {
				return err
			}
			p.Legend.Left = false
			p.X.Max += 1.2 // the legend's place
			return nil
		},
	}
}

func exchange(l wan) plotKind {
	const metric = "round trips"
	return plotKind{
		name:  "wan-" + l.Name + "-round-trips",
		title: "Round trips of 256 KB, four senders (more is better)\n" + l.Title,
		has:   func(r *result) bool { return len(r.measured(l.Name, metric)) > 0 },
		draw: func(p *plot.Plot, r *result) error {
			p.Y.Label.Text = fmt.Sprintf("round trips in %d s", r.Seconds)
			names := r.measured(l.Name, metric)
			var counts plotter.Values
			for _, carrier := range names {
				v, _ := r.spread(l.Name, metric, carrier)
				counts = append(counts, v.median)
			}
			bars, err := newBars(counts, 3)
			if err != nil {
				return err
			}
			p.Add(bars)
			p.Y.Min = 0
			nominal(p, names)
			return nil
		},
	}
}

// points are values with their ends, as plotter wants them.
type points struct {
	plotter.XYs
	plotter.YErrors
}

func (s *points) add(x, y, low, high float64) {
	s.XYs = append(s.XYs, plotter.XY{X: x, Y: y})
	s.YErrors = append(s.YErrors, struct{ Low, High float64 }{y - low, high - y})
}

// addTo draws dots and their ends, and returns the dots for a legend.
func (s *points) addTo(p *plot.Plot, c color.Color) (*plotter.Scatter, error) {
	dots, err := plotter.NewScatter(s)
	if err != nil {
		return nil, err
	}
	dots.GlyphStyle = draw.GlyphStyle{Color: c, Radius: vg.Points(3.5), Shape: draw.CircleGlyph{}}
	ends, err := plotter.NewYErrorBars(s)
	if err != nil {
		return nil, err
	}
	ends.LineStyle = draw.LineStyle{Color: c, Width: vg.Points(1.5)}
	p.Add(ends, dots)
	return dots, nil
}

// A place is where a metric stands on the X axis.
type place struct {
	x                      float64
	label, measure, metric string
}

func measuredAny(r *result, all []place) bool {
	return slices.ContainsFunc(all, func(at place) bool { return len(r.measured(at.measure, at.metric)) > 0 })
}

// drawLines draws a line for each carrier through its medians, with their least and most.
func drawLines(p *plot.Plot, r *result, all []place) error {
	var ticks []plot.Tick
	for _, at := range all {
		ticks = append(ticks, plot.Tick{Value: at.x, Label: at.label})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	for _, carrier := range r.Carriers {
		var s points
		for _, at := range all {
			if v, ok := r.spread(at.measure, at.metric, carrier); ok {
				s.add(at.x, v.median, v.least, v.most)
			}
		}
		if s.Len() == 0 {
			continue
		}
		line, err := plotter.NewLine(s)
		if err != nil {
			return err
		}
		line.LineStyle = draw.LineStyle{Color: r.colour(carrier), Width: vg.Points(1.5)}
		dots, err := s.addTo(p, r.colour(carrier))
		if err != nil {
			return err
		}
		p.Add(line)
		p.Legend.Add(carrier, line, dots)
	}
	logarithmic(&p.Y)
	p.X.Min, p.X.Max = p.X.Min-0.5, p.X.Max+0.5
	return nil
}

func drawRoundTrips(p *plot.Plot, r *result) error {
	p.Y.Label.Text = "microseconds"
	names := []string{"empty", "1 KB", "64 KB"}
	measures := []string{"round-trip-0", "round-trip-1KB", "round-trip-64KB"}
	for i, carrier := range r.Carriers {
		var s points
		for x, measure := range measures {
			p50, ok := r.spread(measure, "p50 us", carrier)
			p99, _ := r.spread(measure, "p99 us", carrier)
			if ok {
				s.add(float64(x)+0.12*(float64(i)-float64(len(r.Carriers)-1)/2), p50.median, p50.median, p99.median)
			}
		}
		if s.Len() == 0 {
			continue
		}
		dots, err := s.addTo(p, r.colour(carrier))
		if err != nil {
			return err
		}
		p.Legend.Add(carrier, dots)
	}
	logarithmic(&p.Y)
	nominal(p, names)
	return nil
}

func drawInBulk(p *plot.Plot, r *result) error {
	const measure = "bulk-round-trip"
	p.X.Label.Text = "carrier, and what the flow reached meanwhile"
	p.Y.Label.Text = "microseconds"
	var names []string
	for x, carrier := range r.measured(measure, "p50 us") {
		p50, _ := r.spread(measure, "p50 us", carrier)
		p99, _ := r.spread(measure, "p99 us", carrier)
		flow, _ := r.spread(measure, "MB/s", carrier)
		var s points
		s.add(float64(x), p50.median, p50.median, p99.median)
		if _, err := s.addTo(p, r.colour(carrier)); err != nil {
			return err
		}
		names = append(names, fmt.Sprintf("%s\n%s MB/s", carrier, number(flow.median)))
	}
	logarithmic(&p.Y)
	nominal(p, names)
	return nil
}

func newBars(values plotter.Values, colour int) (*plotter.BarChart, error) {
	bars, err := plotter.NewBarChart(values, vg.Points(40))
	if err != nil {
		return nil, err
	}
	bars.Color, bars.LineStyle.Width = colours[colour], 0
	return bars, nil
}

// nominal names the places 0, 1, 2 ... of the X axis.
func nominal(p *plot.Plot, names []string) {
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.5, float64(len(names))-0.5
}

// logarithmic makes the axis so, once it has its data.
func logarithmic(axis *plot.Axis) {
	axis.Scale = plot.LogScale{}
	axis.Tick.Marker = decades{}
	axis.Min, axis.Max = axis.Min/1.3, axis.Max*1.3
}

// decades marks 1, 2 and 5 of each power of ten.
type decades struct{}

func (decades) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for exponent := int(math.Floor(math.Log10(low))); math.Pow10(exponent) <= high; exponent++ {
		for _, n := range []float64{1, 2, 5} {
			if v := n * math.Pow10(exponent); v >= low && v <= high {
				ticks = append(ticks, plot.Tick{Value: v, Label: thousands(strconv.FormatFloat(v, 'f', -1, 64))})
			}
		}
	}
	return ticks
}
