"use strict";
// Asks the sidecar once a second, shows the figures in the tables, and appends them to the plots. What the plots show of the
// time before comes from the sidecar too. All text goes into the page as text, never as markup.

const seconds = 600;
const element = (id) => document.getElementById(id);

const names = {
  dialled: "links dialled", accepted: "links accepted", dials_failed: "dials that failed", refused: "connections turned away",
  dropped_datagrams: "datagrams dropped", dropped_connections: "connections dropped", pending: "connections under way",
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
  const value = id === "rtt" ? (_, v) => v == null ? "" : milliseconds(v)
    : id === "lost" ? (_, v) => v == null ? "" : v.toFixed(1)
    : (_, v) => v == null ? "" : bytes(v);
  const marks = id === "bytes" || id === "queued" ? (_, all) => all.map((v) => bytes(v)) : undefined;
  const options = {
    width: Math.max(place.clientWidth, 200), height: 180, cursor: { sync: { key: "time" } },
    scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.1, id === "rtt" ? 0.1 : id === "lost" ? 1 : 10)] } },
    axes: [axis, { ...axis, size: 70, ...(marks ? { values: marks } : {}) }],
    series: [{}, ...lines.map(([label, stroke]) => ({ label, stroke, width: 1.5, points: { show: false }, value }))],
  };
  plots[id] = new uPlot(options, lines.map(() => []).concat([[]]), place);
}

function draw() {
  plots.rtt.setData([data.time, data.rtt]);
  plots.bytes.setData([data.time, data.sent, data.received]);
  plots.lost.setData([data.time, data.lost]);
  plots.queued.setData([data.time, data.queued]);
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
  element("everybody").hidden = !node;
  for (const row of element("peers").tBodies[0].rows) row.classList.toggle("shown", row.dataset.node === node);
  history().catch(() => {});
}

// Tables

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
    fill(row, [
      p.node, p.address, duration(p.uptime), milliseconds(p.rtt), milliseconds(p.variation), rate("sent"), rate("received"),
      p.packets ? (100 * p.lost / p.packets).toFixed(2) + " %" : "", bytes(p.window), bytes(p.queued),
      (p.dialled ? "dialled" : "accepted") + ", " + p.plane + ", " + p.streams + ", " + (p.links > 1 ? p.links + " connections, " : "") +
        p.lanes.length + (p.lanes.length === 1 ? " stream" : " streams"),
      p.identity || "cookie",
    ]);
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
      c.subject + (c.authority ? " (authority)" : ""), c.file, new Date(c.expires * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC",
      left > 0 ? duration(left) : "expired",
    ]);
    row.cells[3].classList.toggle("bad", left < 30 * 86400);
  });
  element("cookies").hidden = now.certificates.length > 0;
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

plot("rtt", [["round trip", "#3b73d1"]]);
plot("bytes", [["sent", "#3b73d1"], ["received", "#d1793b"]]);
plot("lost", [["lost", "#b3261e"]]);
plot("queued", [["queued", "#6b4fb3"]]);
element("everybody").addEventListener("click", () => show(""));
new ResizeObserver(() => {
  for (const [id, p] of Object.entries(plots)) p.setSize({ width: Math.max(element("plot-" + id).clientWidth, 200), height: 180 });
}).observe(element("plots"));
turn();
