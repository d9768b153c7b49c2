"use strict";
// Asks the sidecar once a second, shows the figures in the tables, and appends them to the plots. What the plots show of the
// time before comes from the sidecar too. All text goes into the page as text, never as markup.

const seconds = 600;
const element = (id) => document.getElementById(id);

const names = {
  dialled: "links over QUIC dialled", accepted: "links over QUIC accepted", dials_failed: "dials that failed", refused: "connections refused",
  dropped_datagrams: "datagrams dropped", dropped_connections: "connections dropped", pending: "connections under way",
};

// What the page's events are in words. The kinds are those of quic_dist:subscribe/1.
const happened = {
  down: "link ended", connect_failed: "could not connect", refused: "refused a connection", connection_ended: "a connection of the link ended", untrusted: "closed: not trusted any more",
  flood: "dropped connections", certificates_failed: "certificate files cannot be used", sidecar_down: "the sidecar ended",
};

// What the words of a link mean.
const words = {
  dialled: "this node opened the link", accepted: "the peer opened the link",
  socket: "the VM's data goes to the sidecar by a socket", stdio: "the VM's data goes to the sidecar by its standard input and output",
  single: "all messages are on one stream", bulk: "large messages, and what their senders send behind them, are on streams of their own",
  sender: "each sending process has a stream",
};

function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  for (; n >= 1000 && i < units.length - 1; i++) n /= 1000;
  return (i === 0 ? Math.round(n) : n.toFixed(n < 10 ? 2 : n < 100 ? 1 : 0)) + " " + units[i];
}

function duration(s) {
  if (s < 120) return s + " s";
  if (s < 7200) return Math.floor(s / 60) + " min";
  if (s < 172800) return Math.floor(s / 3600) + " h";
  return Math.floor(s / 86400) + " d";
}

const milliseconds = (ms) => ms.toFixed(ms < 10 ? 2 : 1) + " ms";

// Times are the browser's, as YYYY-MM-DD HH:MM:SS.
const two = (n) => String(n).padStart(2, "0");
const clock = (d) => [d.getHours(), d.getMinutes(), d.getSeconds()].map(two).join(":");
const date = (d) => d.getFullYear() + "-" + two(d.getMonth() + 1) + "-" + two(d.getDate());
const moment = (s) => { const d = new Date(s * 1000); return date(d) + " " + clock(d); };

function zone() {
  const minutes = -new Date().getTimezoneOffset(), size = Math.abs(minutes);
  return "UTC" + (minutes < 0 ? "-" : "+") + two(Math.floor(size / 60)) + ":" + two(size % 60);
}

// Plots

const blank = () => ({ time: [], rtt: [], sent: [], received: [], lost: [], queued: [] });
let shown = "";       // the peer in the plots; all, if empty
let data = blank();
let asked = 0;        // which request for a history is the last
const plots = {};

function plot(id, lines) {
  const place = element("plot-" + id);
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--soft").trim(), line = style.getPropertyValue("--line").trim();
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const figure = id === "rtt" ? milliseconds : id === "lost" ? (v) => v.toFixed(1) + "/s" : id === "bytes" ? (v) => bytes(v) + "/s" : bytes;
  const value = (_, v) => v == null ? "none" : figure(v);
  const marks = id === "bytes" || id === "queued" ? (_, all) => all.map((v) => bytes(v)) : undefined;
  const options = {
    width: Math.max(place.clientWidth, 200), height: 180, cursor: { sync: { key: "time" } },
    scales: { y: { range: (_, low, high) => [0, Math.max((high || 0) * 1.1, id === "rtt" ? 0.1 : id === "lost" ? 1 : 10)] } },
    axes: [{ ...axis, space: 80, values: (_, all) => all.map((s) => clock(new Date(s * 1000))) }, { ...axis, size: 70, ...(marks ? { values: marks } : {}) }],
    series: [{ label: "time", value: (_, s) => s == null ? "none" : clock(new Date(s * 1000)) }, ...lines.map(([label, stroke]) => ({ label, stroke, width: 1.5, points: { show: false }, value }))],
  };
  plots[id] = new uPlot(options, lines.map(() => []).concat([[]]), place);
}

function draw() {
  plots.rtt.setData([data.time, data.rtt]);
  plots.bytes.setData([data.time, data.sent, data.received]);
  plots.lost.setData([data.time, data.lost]);
  plots.queued.setData([data.time, data.queued]);
  // Without a mouse over a plot its legend has the last second.
  for (const p of Object.values(plots)) if (!(p.cursor.left >= 0)) p.setLegend({ idx: data.time.length ? data.time.length - 1 : null });
}

async function get(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(path + ": " + answer.status);
  return answer.json();
}

// The history is asked for each second too: it is what makes the plots right after a pause of this tab.
async function history() {
  const mine = ++asked;
  const h = await get("history.json" + (shown ? "?peer=" + encodeURIComponent(shown) : ""));
  if (mine !== asked) return;
  data = blank();
  for (let i = 0; i < (h.rtt || []).length; i++) data.time.push(h.first + i);
  for (const key of ["rtt", "sent", "received", "lost", "queued"]) data[key] = h[key] || [];
  draw();
}

function show(node) {
  shown = node;
  element("of").textContent = node || "all peers";
  element("which").textContent = node ? "smoothed" : "the longest of all peers";
  element("everybody").hidden = !node;
  for (const row of element("peers").tBodies[0].rows) row.classList.toggle("shown", row.dataset.node === node);
  history().catch(() => {});
}

// Tables

const explain = (text) => text.split(", ").filter((w) => words[w]).map((w) => w + ": " + words[w]).join("\n");

// The outages of a link: in short, and at length.
const outages = (o) => (o.count ? ", " + o.count + (o.count === 1 ? " outage" : " outages") : "") + (o.down ? ", waits for a connection" : "");
const outagesAtLength = (o) => "\noutages: " + o.count + " are over, the last after " + milliseconds(o.last) + ", all after " + milliseconds(o.total) +
  "; " + bytes(o.resent) + " sent again; connections missing now: " + o.down;

function fill(row, texts) {
  texts.forEach((text, i) => {
    const cell = row.cells[i] || row.insertCell();
    if (cell.textContent !== text) cell.textContent = text;
  });
}

let before = new Map(); // of each peer the counts of the last second, for rates

function peers(now) {
  const body = element("peers").tBodies[0];
  const rows = new Map([...body.rows].map((row) => [row.dataset.node, row]));
  const counts = new Map();
  now.peers.forEach((p, at) => {
    let row = rows.get(p.node);
    if (!row) {
      row = document.createElement("tr");
      row.dataset.node = p.node;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = p.node;
      button.addEventListener("click", () => show(p.node));
      row.insertCell().append(button);
      row.classList.toggle("shown", p.node === shown);
    }
    rows.delete(p.node);
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] || null);
    const old = before.get(p.node);
    const elapsed = old ? (now.received_at - old.at) / 1000 : 0;
    const rate = (key) => elapsed > 0 && p[key] >= old[key] ? bytes((p[key] - old[key]) / elapsed) + "/s" : "";
    counts.set(p.node, { at: now.received_at, sent: p.sent, received: p.received });
    const q = p.quic; // not there for a link over HTTP
    fill(row, [
      p.node, p.carrier, p.address, duration(p.uptime), q ? milliseconds(q.rtt) : "", q ? milliseconds(q.variation) : "", rate("sent"), rate("received"),
      q && q.packets ? (100 * q.lost / q.packets).toFixed(2) + " %" : "", q ? bytes(q.window) : "", bytes(p.queued),
      (p.dialled ? "dialled" : "accepted") + (q ? ", " + q.plane + ", " + q.streams + ", " + (q.links > 1 ? q.links + " connections, " : "") +
        q.lanes.length + (q.lanes.length === 1 ? " stream" : " streams") + (q.outages ? outages(q.outages) : "") : ""),
      p.identity,
    ]);
    row.cells[11].title = explain(row.cells[11].textContent) + (q && q.outages ? outagesAtLength(q.outages) : "");
    row.cells[11].classList.toggle("bad", Boolean(q && q.outages && q.outages.down));
  });
  before = counts;
  for (const row of rows.values()) row.remove();
  element("nobody").hidden = now.peers.length > 0;
}

function certificates(now) {
  const body = element("certificates").tBodies[0];
  while (body.rows.length > now.certificates.length) body.deleteRow(-1);
  now.certificates.forEach((c, i) => {
    const row = body.rows[i] || body.insertRow();
    const left = c.expires - now.time;
    fill(row, [
      c.subject + (c.authority ? " (authority)" : ""), c.file, moment(c.expires),
      left > 0 ? duration(left) : "expired",
    ]);
    row.cells[3].classList.toggle("bad", left < 30 * 86400);
  });
  element("cookies").hidden = now.certificates.length > 0;
}

function events(now) {
  const body = element("events").tBodies[0];
  while (body.rows.length > now.events.length) body.deleteRow(-1);
  now.events.forEach((e, i) => {
    fill(body.rows[i] || body.insertRow(), [
      moment(e.time), happened[e.kind] || e.kind, e.node || "", e.text, e.times > 1 ? e.times + " times" : "",
    ]);
  });
  element("quiet").hidden = now.events.length > 0;
}

function counters(now) {
  const list = element("counters");
  if (!list.children.length) {
    for (const key of Object.keys(names)) {
      const term = document.createElement("dt"), figure = document.createElement("dd");
      term.textContent = names[key];
      figure.dataset.counter = key;
      list.append(term, figure);
    }
  }
  for (const figure of list.querySelectorAll("dd")) figure.textContent = now.counters[figure.dataset.counter];
}

async function look() {
  const now = await get("now.json");
  now.received_at = performance.now();
  document.title = (now.node || "quic_dist") + ": " + now.peers.length + (now.peers.length === 1 ? " peer" : " peers");
  element("node").textContent = now.node || "quic_dist";
  element("summary").textContent = now.peers.length + (now.peers.length === 1 ? " peer" : " peers") + ", up " + duration(now.uptime) + ", version " + now.build;
  peers(now);
  events(now);
  certificates(now);
  counters(now);
}

async function turn() {
  try {
    await look();
    await history();
    element("stale").hidden = true;
  } catch (e) {
    element("stale").hidden = false;
  }
  setTimeout(turn, 1000);
}

element("zone").textContent = zone();
plot("rtt", [["round trip", "#3b73d1"]]);
plot("bytes", [["sent", "#3b73d1"], ["received", "#d1793b"]]);
plot("lost", [["lost", "#b3261e"]]);
plot("queued", [["queued", "#6b4fb3"]]);
element("everybody").addEventListener("click", () => show(""));
new ResizeObserver(() => {
  for (const [id, p] of Object.entries(plots)) p.setSize({ width: Math.max(element("plot-" + id).clientWidth, 200), height: 180 });
}).observe(element("plots"));
turn();
