// Package page tests the status page as a person sees it: in headless Chromium, on a real node with real peers.
package page

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// A node is an Erlang node whose distribution is ours.
type node struct {
	name string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

const top = "../.."

func quicdistd(t *testing.T) string {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(top, "erlang/priv", runtime.GOOS+"-"+runtime.GOARCH, "quicdistd"))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func freePort(t *testing.T, listen string) string {
	t.Helper()
	if listen == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return fmt.Sprint(c.LocalAddr().(*net.UDPAddr).Port)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// start starts a node with a certificate below dir, which runs the program until the test ends.
func start(t *testing.T, dir, program string, options ...string) *node {
	t.Helper()
	n := &node{name: freePort(t, "udp") + "@127.0.0.1"}
	cert := exec.Command(quicdistd(t), "cert", "node", n.name, "-ca", filepath.Join(dir, "ca.pem"), "-out", dir)
	if said, err := cert.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	ebin, err := filepath.Abs(filepath.Join(top, "_build/default/lib/quic_dist/ebin"))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{
		"-noinput", "-name", n.name, "-no_epmd", "-setcookie", "secret_of_this_test", "-proto_dist", "quic", "-pa", ebin,
		"-quic_dist", "certfile", quoted(filepath.Join(dir, n.name+".pem")), "-quic_dist", "keyfile",
		quoted(filepath.Join(dir, n.name+".key")),
		"-quic_dist", "cacertfile", quoted(filepath.Join(dir, "ca.pem")),
	}
	args = append(append(args, options...), "-eval", program)
	n.cmd = exec.Command("erl", args...)
	n.cmd.Stdout, n.cmd.Stderr = &n.out, &n.out
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			t.Logf("%s said: %s", n.name, &n.out)
		}
	})
	return n
}

func quoted(s string) string { return `"` + s + `"` }

func (n *node) kill() {
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait() // a second time it says so, and that is all
}

// talk has a node send to another for ever, at a rate that goes up and down.
func talk(to string) string {
	return fmt.Sprintf(`Peer = '%s', (fun Connect() -> net_kernel:connect_node(Peer) =:= true orelse begin timer:sleep(100), Connect() end end)(),
		(fun Loop(N) -> erpc:call(Peer, erlang, byte_size, [binary:copy(<<"x">>, 20000 + 15000 * (N rem 17))]),
		timer:sleep(20), Loop(N + 1) end)(0).`, to)
}

// A browser watches what must not happen on any page.
type browser struct {
	context.Context
	mu     sync.Mutex
	wrong  []string
	asked  map[string]bool // hosts
	expect string          // a complaint that the test has brought about
}

func open(t *testing.T, options ...chromedp.ExecAllocatorOption) *browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("there is no chromium: make page-test installs it")
	}
	options = append(append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox,
		chromedp.Flag("no-proxy-server", true), chromedp.WindowSize(1280, 1000)), options...)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	b := &browser{asked: make(map[string]bool)}
	b.Context, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	chromedp.ListenTarget(b.Context, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *cdpruntime.EventExceptionThrown:
			b.wrong = append(b.wrong, e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			if e.Entry.Level == log.LevelError && (b.expect == "" || !strings.Contains(e.Entry.Text, b.expect)) {
				b.wrong = append(b.wrong, e.Entry.Text)
			}
		case *network.EventRequestWillBeSent:
			if u, err := url.Parse(e.Request.URL); err == nil && u.Scheme != "data" {
				b.asked[u.Hostname()] = true
			}
		}
	})
	return b
}

func (b *browser) do(t *testing.T, what string, actions ...chromedp.Action) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- chromedp.Run(b, actions...) }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	case <-time.After(60 * time.Second):
		t.Fatalf("waited in vain for %s", what)
	}
}

// is waits until an expression is true on the page. (chromedp.Poll makes functions of texts there, which the page's
// policy forbids.)
func is(expression string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		for deadline := time.Now().Add(40 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			var yes bool
			err := chromedp.Evaluate("Boolean("+expression+")", &yes).Do(ctx)
			if err == nil && yes {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s is not so (%v)", expression, err)
			}
		}
	})
}

// The page shows peers as they come and go, plots what they do, second by second, and says when what it shows is old.
// It asks nobody but the node, and the node's secrets are not on it.
func TestThePageLives(t *testing.T) {
	dir := t.TempDir()
	if said, err := exec.Command(quicdistd(t), "cert", "ca", "-out", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	port := freePort(t, "tcp")
	here := start(t, dir, "ok.", "-quic_dist", "status_port", port)
	first := start(t, dir, talk(here.name))
	second := start(t, dir, talk(here.name))
	address := "http://127.0.0.1:" + port + "/"
	await(t, port)

	b := open(t)
	row := func(n *node) string { return fmt.Sprintf(`document.querySelector('tr[data-node="%s"]')`, n.name) }
	b.do(t, "both peers", chromedp.Navigate(address), is(row(first)+" && "+row(second)),
		is(fmt.Sprintf(`document.title === "%s: 2 peers"`, here.name)))
	b.do(t, "rates in the table",
		is(row(first)+`.cells[7].textContent.endsWith("B/s") && !`+row(first)+`.cells[7].textContent.startsWith("0 ")`))
	b.do(t, "plots that grow",
		is(`plots.bytes.data[2].filter((n) => n > 0).length >= 5 && plots.rtt.data[1].some((n) => n > 0)`))
	b.do(t, "four plots with something on them", is(`[...document.querySelectorAll("canvas")].filter((c) =>
		c.getContext("2d").getImageData(0, 0, c.width, c.height).data.some((n) => n > 0)).length === 4`))
	b.do(t, "a gap before the first peer, and not a round trip of zero",
		is(`plots.rtt.data[1][0] === null && plots.rtt.data[1].every((n) => n === null || n > 0)`))
	b.do(t, "legends with the last second, without a mouse", is(`[...document.querySelectorAll("#plots .u-value")].every((e) => !e.textContent.includes("--"))
		&& document.querySelector("#plot-rtt .u-legend").textContent.match(/^time[: ]*[0-9]{2}:[0-9]{2}:[0-9]{2}\s*round trip[: ]*[0-9.]+ ms$/)`))
	b.do(t, "which round trip is meant", is(`document.getElementById("which").textContent === "the longest of all peers"`))
	b.do(t, "explanations", is(`[...document.querySelectorAll("th[title]")].map((e) => e.textContent).join() ===
		"carrier,address,up,round trip,variation,loss,window,queued,link,identity" && `+row(first)+`.cells[11].title.includes("socket: ")`))
	b.do(t, "certificates", is(`document.querySelectorAll("#certificates tbody tr").length === 2`),
		is(`document.querySelector("#certificates").textContent.includes("CN=`+here.name+`")`),
		is(`document.querySelector("#certificates tbody td:nth-child(3)").textContent.match(/^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}$/)`))

	var plots int
	b.do(t, "one peer's plots", chromedp.Click(fmt.Sprintf(`tr[data-node="%s"] button`, first.name), chromedp.ByQuery),
		is(fmt.Sprintf(`document.getElementById("of").textContent === "%s" && %s.classList.contains("shown")`, first.name,
			row(first))),
		is(`plots.bytes.data[0].length > 3`), chromedp.Evaluate(`plots.bytes.data[0].length`, &plots))
	b.do(t, "the next second, by itself", is(fmt.Sprintf(`plots.bytes.data[0].length > %d`, plots)))
	b.do(t, "that it is one peer's", is(`document.getElementById("which").textContent === "smoothed"`))
	b.do(t, "all peers again", chromedp.Click("#everybody", chromedp.ByQuery),
		is(`document.getElementById("of").textContent === "all peers"`))

	if file := os.Getenv("QUIC_DIST_SCREENSHOT"); file != "" {
		var picture []byte
		second.kill() // so that there is an event
		b.do(t, "something to see", is(`plots.bytes.data[2].filter((n) => n > 0).length >= 30`), is("!"+row(second)))
		second = start(t, dir, talk(here.name))
		for _, shot := range []struct {
			width int64
			file  string
		}{{420, strings.TrimSuffix(file, ".png") + "-420.png"}, {1280, file}} {
			b.do(t, "a picture", chromedp.EmulateViewport(shot.width, 1000), is(row(second)),
				is(fmt.Sprintf("innerWidth === %d", shot.width)),
				chromedp.Sleep(3*time.Second), chromedp.FullScreenshot(&picture, 100))
			if err := os.WriteFile(shot.file, picture, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}

	var text string
	b.do(t, "the page's text", chromedp.OuterHTML("html", &text, chromedp.ByQuery))
	if strings.Contains(text, "secret_of_this_test") || strings.Contains(text, "PRIVATE KEY") {
		t.Error("the page has a secret on it")
	}
	second.kill()
	b.do(t, "a peer that has gone", is("!"+row(second)+" && "+row(first)))
	b.do(t, "its end among the events", is(fmt.Sprintf(`[...document.querySelectorAll("#events tbody tr")].some((r) =>
		r.cells[1].textContent === "link ended" && r.cells[2].textContent === "%s" && r.cells[0].textContent.startsWith(date(new Date())))`, second.name)))
	for _, width := range []int64{320, 420, 1280} {
		b.do(t, fmt.Sprintf("a page of %d pixels that does not run out", width), chromedp.EmulateViewport(width, 900),
			is(fmt.Sprintf(`innerWidth === %d && document.documentElement.scrollWidth <= innerWidth &&
				[...document.querySelectorAll(".u-wrap")].every((e) => e.getBoundingClientRect().right <= innerWidth)`, width)))
	}
	b.mu.Lock()
	b.expect = "net::ERR_CONNECTION" // the console's, of requests that are not answered
	b.mu.Unlock()
	here.kill()
	b.do(t, "words that all is old", is(`!document.getElementById("stale").hidden`))
	again := start(t, dir, "ok.", "-quic_dist", "status_port", port)
	b.do(t, "the next node at that port", is(`document.getElementById("stale").hidden`),
		is(fmt.Sprintf(`document.title.startsWith("%s")`, again.name)))

	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.wrong {
		t.Errorf("the browser complains: %s", w)
	}
	if len(b.asked) != 1 || !b.asked["127.0.0.1"] {
		t.Errorf("the page asks %v", b.asked)
	}
}

// A web page whose host name has been made to point at the node gets nothing of it.
func TestAnotherNameForTheHostIsTurnedAway(t *testing.T) {
	dir := t.TempDir()
	if said, err := exec.Command(quicdistd(t), "cert", "ca", "-out", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	port := freePort(t, "tcp")
	here := start(t, dir, "ok.", "-quic_dist", "status_port", port)
	await(t, port)
	b := open(t, chromedp.Flag("host-resolver-rules", "MAP rebound.example 127.0.0.1"))
	var text string
	b.do(t, "an answer", chromedp.Navigate("http://rebound.example:"+port+"/now.json"),
		chromedp.OuterHTML("html", &text, chromedp.ByQuery))
	if strings.Contains(text, here.name) || !strings.Contains(text, "localhost and 127.0.0.1 only") {
		t.Errorf("it is told %s", text)
	}
	b.do(t, "the page itself", chromedp.Navigate("http://localhost:"+port+"/"),
		is(fmt.Sprintf(`document.title.startsWith("%s")`, here.name)))
}

// await waits until somebody listens.
func await(t *testing.T, port string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
