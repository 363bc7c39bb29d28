// A pod's row: its columns, and what they show.

/** The span of readings from which rates and success are computed. */
const WINDOW_MS = 30000;

const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

/** A pod looks stuck if at least this many requests wait for it, and this many times as many as for the usual pod. `examples/top` has the same numbers. */
const STUCK_FROM = 5;
const STUCK_TIMES = 4;

/** A pod's columns. Rows are sorted by `key`, the greatest first unless `isText` or `isLeastFirst`. */
const COLUMNS = [
  { id: "pod", label: "Pod", isText: true, key: (row) => labelOf(row.pod) },
  { id: "zone", label: "Zone", isText: true, key: (row) => row.pod.zone ?? "" },
  { id: "state", label: "State", hint: "whether it gets requests, since when, and why: the worst first", key: badness },
  { id: "flight", label: "In flight", hint: "requests up to the ends of their responses", key: (row) => row.pod.in_flight },
  { id: "waiting", label: "Waiting", hint: "requests without an answer yet", key: (row) => row.pod.waiting },
  { id: "requests", label: "Requests", hint: "in a second, and since it joined", key: (row) => row.recent.rate ?? row.pod.counts?.requests ?? 0 },
  { id: "success", label: "Success", hint: "of the last 30 s, or since it joined", isLeastFirst: true, key: (row) => row.recent.success ?? 2 },
  { id: "failures", label: "Failures", hint: "since it joined", key: (row) => row.failures ?? 0 },
  { id: "p50", label: "p50", hint: "50 % of its successes took at most this, since it joined", key: (row) => row.pod.p50_seconds ?? 0 },
  { id: "p95", label: "p95", hint: "95 % of its successes took at most this, since it joined", key: (row) => row.pod.p95_seconds ?? 0 },
  { id: "p99", label: "p99", hint: "99 % of its successes took at most this, since it joined", key: (row) => row.pod.p99_seconds ?? 0 },
  { id: "share", label: "Share", hint: "of the next requests", key: (row) => row.pod.share ?? 0 },
  { id: "weight", label: "Weight", key: (row) => row.pod.weight },
  { id: "trial", label: "Next trial", hint: "time until it is tried, if it is out", key: (row) => row.pod.next_trial_seconds ?? -1 },
  { id: "error", label: "Last error", isText: true, key: (row) => row.pod.last_error?.text ?? "\uffff" },
];
/** What a row shows, in the order of its elements. */
const SLOTS = ["name", "address", "zone", "verdict", "since", "why", "flight", "waiting", "rate", "total", "success",
  "failures", "p50", "p95", "p99", "share", "weight", "trial", "error", "explain"];
const INSIDE = {
  pod: [["button", "name"], ["small", "address"]],
  state: [["span", "verdict"], ["small", "since"], ["span", "why"]],
  requests: [["span", "rate"], ["small", "total"]],
};
const BARS = ["p95", "share"];

/** Sorts the worst first: pods that are out, then pods that fail, then pods that keep requests waiting. Coarse, so that rows don't jump about. */
function badness(row) {
  const failing = row.recent.success === null ? 0 : Math.round((1 - row.recent.success) * 10);
  const stuck = row.isStuck ? 1 : 0;
  return (9 - verdictOf(row.pod)[2]) * 100 + stuck * 50 + failing;
}

const rowTemplate = (() => {
  const tr = make("tr");
  tr.setAttribute("role", "row");
  for (const { id, label } of COLUMNS) {
    const td = make("td", { className: `c-${id}` });
    td.setAttribute("role", "cell");
    td.dataset.label = label;
    for (const [tag, slot] of INSIDE[id] ?? [["span", id]]) td.append(make(tag, { className: `slot ${slot}` }));
    if (BARS.includes(id)) td.append(make("i", { className: "bar" }));
    tr.append(td);
  }
  tr.querySelector("button").type = "button";
  tr.querySelector("button").setAttribute("aria-expanded", "false");
  const td = make("td", { className: "whole", hidden: true });
  td.setAttribute("role", "cell");
  td.append(make("pre", { className: "slot explain" }));
  tr.append(td);
  return tr;
})();

class Row {
  constructor(pod) {
    this.tr = rowTemplate.cloneNode(true);
    this.slots = [...this.tr.getElementsByClassName("slot")];
    this.bars = [...this.tr.getElementsByClassName("bar")];
    this.texts = new Array(SLOTS.length).fill("");
    this.widths = [-1, -1];
    this.readings = [];
    this.isOpen = false;
    this.pod = pod;
  }

  read(pod, at) {
    this.pod = pod;
    const counts = pod.counts;
    this.failures = counts ? failuresOf(counts) : null;
    this.recent = counts ? recent(this.readings, at, counts, this.failures) : { rate: null, success: null };
  }

  show(whole, slowest) {
    const { pod } = this;
    const [verdict, usual] = verdictOf(pod);
    const colour = this.isStuck && usual === "good" ? "warn" : usual;
    const since = pod.since_unix_ms === null || colour === "good" ? "" : `for ${age(whole.at_unix_ms - pod.since_unix_ms)}`;
    const stuck = this.isStuck && !pod.why ? "its requests wait, those of other pods don't" : "";
    const texts = [pod.name ?? pod.address, pod.name ? pod.address : "", pod.zone ?? "", verdict, since, pod.why || stuck,
      number(pod.in_flight), number(pod.waiting), this.recent.rate === null ? NONE : `${rate(this.recent.rate)}/s`,
      pod.counts ? number(pod.counts.requests) : "", percent(this.recent.success),
      this.failures === null ? NONE : number(this.failures), seconds(pod.p50_seconds), seconds(pod.p95_seconds),
      seconds(pod.p99_seconds), percent(pod.share), number(pod.weight),
      pod.next_trial_seconds === null ? "" : seconds(pod.next_trial_seconds), pod.last_error?.text ?? "",
      this.isOpen ? explain(pod, whole) : ""];
    for (let slot = 0; slot < texts.length; slot += 1) {
      if (this.texts[slot] === texts[slot]) continue;
      this.texts[slot] = texts[slot];
      this.slots[slot].textContent = texts[slot];
    }
    const state = `${colour}${this.isStuck ? " stuck" : ""}`;
    if (this.tr.className !== state) this.tr.className = state;
    this.bar(0, (pod.p95_seconds ?? 0) / slowest.latency);
    this.bar(1, (pod.share ?? 0) / slowest.share);
  }

  bar(index, part) {
    const width = Math.round(Math.min(1, part) * 100) || 0;
    if (this.widths[index] === width) return;
    this.widths[index] = width;
    this.bars[index].style.width = `${width}%`;
  }

  open(isOpen, whole) {
    this.isOpen = isOpen;
    this.tr.querySelector("button").setAttribute("aria-expanded", String(isOpen));
    this.tr.lastElementChild.hidden = !isOpen;
    const text = isOpen ? explain(this.pod, whole) : "";
    this.texts[SLOTS.length - 1] = text;
    this.slots[SLOTS.length - 1].textContent = text;
  }
}

/** Rates since the oldest reading of the window. */
function recent(readings, at, counts, failures) {
  const last = readings.at(-1);
  // A pod that rejoined counts from zero. With a clock that was set back, no reading would expire until it has caught
  // up.
  if (last && (counts.requests < last.requests || at < last.at)) readings.length = 0;
  const { requests, successes, overloads } = counts;
  if (readings.at(-1)?.at !== at) readings.push({ at, requests, successes, bad: failures + overloads });
  while (at - readings[0].at > WINDOW_MS) readings.shift();
  const first = readings[0];
  const ratio = (good, bad) => (good + bad > 0 ? good / (good + bad) : null);
  const bad = failures + overloads;
  return {
    rate: at > first.at ? ((requests - first.requests) * 1000) / (at - first.at) : null,
    success: ratio(successes - first.successes, bad - first.bad) ?? ratio(successes, bad),
  };
}

/** A pod whose requests wait, while those of the usual one don't, looks stuck before the balancer is sure. */
function markStuck(rows) {
  const waiting = rows.map((row) => row.pod.waiting).sort((a, b) => a - b);
  // The lower of the middle two: of two pods, the one that isn't stuck.
  const usual = waiting[(waiting.length - 1) >> 1];
  for (const row of rows) row.isStuck = row.pod.waiting >= STUCK_FROM && row.pod.waiting > STUCK_TIMES * usual;
}
