"use strict";
// How values are written. They are all plain text: nothing here, or in page.js, turns them into HTML.

const NONE = "–";

const VERDICTS = {
  picked: ["picked", "good", 5],
  far: ["far", "quiet", 6],
  only_by_name: ["only by name", "quiet", 6],
  pending: ["pending", "warn", 3],
  trial: ["tried next", "warn", 2],
  panic: ["picked (panic)", "warn", 1],
  last_resort: ["last resort", "warn", 1],
  check_fails: ["check fails", "bad", 0],
  ejected: ["ejected", "bad", 0],
  unreachable: ["unreachable", "bad", 0],
};

/** A verdict's name, its colour and how bad it is: 0 is the worst. */
function verdictOf(pod) {
  return VERDICTS[pod.verdict] ?? [pod.verdict.replaceAll("_", " "), "warn", 3];
}

function labelOf(pod) {
  return pod.name ? `${pod.name} (${pod.address})` : pod.address;
}

// Made once, because thousands of values are written at a time.
const numbers = new Intl.NumberFormat("en");
const times = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

function number(value) {
  return value < 1000 ? String(value) : numbers.format(value);
}

function many(value, one, more = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : more}`;
}

/** A time in a few characters, as the crate itself writes it. */
function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value >= 7200) return `${Math.round(value / 3600)} h`;
  if (value >= 120) return `${Math.round(value / 60)} min`;
  if (value >= 1) return `${value.toFixed(1)} s`;
  if (value >= 0.001) return `${Math.round(value * 1e3)} ms`;
  return value === 0 ? "0 s" : `${Math.round(value * 1e6)} µs`;
}

/** An age, which a reader counts in whole units: no decimals. */
function age(ms) {
  const value = Math.max(0, ms) / 1000;
  return value < 120 ? `${Math.floor(value)} s` : seconds(value);
}

function percent(part, decimals = 0) {
  if (part === null || part === undefined) return NONE;
  const value = part * 100;
  // 99.96 % must not show as all, nor 0.04 % as nothing.
  if (value > 0 && value < 0.05) return "< 0.1 %";
  if (value > 0 && value < 1) return `${value.toFixed(1)} %`;
  if (value < 100 && value > 99) return `${(Math.floor(value * 10) / 10).toFixed(1)} %`;
  return `${value.toFixed(decimals)} %`;
}

function rate(value) {
  if (value === null) return NONE;
  return value < 10 ? value.toFixed(1) : number(Math.round(value));
}

function clock(ms) {
  return times.format(ms);
}

function eventText(event) {
  const head = event.endpoint ? `${event.endpoint} ` : "";
  const kind = EVENTS[event.kind] ?? event.kind.replaceAll("_", " ");
  return head + kind + (event.detail ? `: ${event.detail}` : "");
}

const EVENTS = {
  reachable: "reachable again",
  discovery_answers: "discovery answers again",
  panic_began: "panic: too few endpoints are healthy",
  panic_ended: "panic over",
};

function failuresOf(counts) {
  const { answered, unanswered, given_up } = counts.failures;
  return answered + unanswered + given_up;
}

/** All that is known of a pod, line by line. */
function explain(pod, whole) {
  const now = whole.at_unix_ms;
  const at = (ms) => `${clock(ms)}, ${age(now - ms)} ago`;
  const verdict = verdictOf(pod)[0];
  const lines = [`${labelOf(pod)} ${verdict}${pod.why ? `: ${pod.why}` : ""}`];
  const add = (what, text) => text && lines.push(`  ${what.padEnd(11)} ${text}`);
  add("since", pod.since_unix_ms && at(pod.since_unix_ms));
  add("next trial", pod.next_trial_seconds !== null && `in ${seconds(pod.next_trial_seconds)}`);
  add("joined", pod.joined_unix_ms && at(pod.joined_unix_ms));
  add("where", [pod.zone && `zone ${pod.zone}`, pod.node && `node ${pod.node}`,
    pod.is_near === null ? "" : pod.is_near ? "near" : "far"].filter(Boolean).join(", "));
  add("now", `${pod.in_flight} in flight, ${pod.waiting} of them without an answer; load ${pod.load}`);
  add("gets", [`share ${percent(pod.share, 1)}`, `weight ${pod.weight}`,
    pod.slow_start < 1 && `slow start: ${percent(pod.slow_start)} of its share`,
    pod.is_terminating && "about to end", !pod.is_in_subset && "outside of the subset",
  ].filter(Boolean).join(", "));
  add("latency", `p50 ${seconds(pod.p50_seconds)}, p95 ${seconds(pod.p95_seconds)}, p99 ${seconds(pod.p99_seconds)}` +
    (pod.average_latency_seconds === null ? "" : `, the policy's average ${seconds(pod.average_latency_seconds)}`));
  if (pod.counts) countLines(pod.counts, add);
  const error = pod.last_error;
  add("last error", error && `${error.text} (${at(error.at_unix_ms)})`);
  const label = labelOf(pod);
  for (const event of whole.events.filter((event) => event.endpoint === label).slice(-10)) {
    const text = eventText({ ...event, endpoint: null });
    add("event", `${clock(event.at_unix_ms)} ${text}`);
  }
  return lines.join("\n");
}

function countLines(counts, add) {
  const named = (all) => Object.entries(all).filter(([, value]) => value > 0)
    .map(([name, value]) => `${number(value)} ${name.replaceAll("_", " ")}`).join(", ");
  const kinds = named(counts.failures);
  const { overloads, cancelled, refused, handed_back, busy, trials, retries, hedges, overtaken } = counts;
  add("requests", `${number(counts.requests)}: ${many(counts.successes, "success", "successes")}, ` +
    `${many(failuresOf(counts), "failure")}${kinds && ` (${kinds})`}`);
  add("of them", named({ overloads, cancelled, refused, handed_back, busy, trials, retries, hedges, overtaken }));
  const all = Object.values(counts.ejections).reduce((sum, it) => sum + it, 0);
  add("ejected", all > 0 && `${many(all, "time")} (${named(counts.ejections)})`);
  add("unreachable", counts.unreachable > 0 && many(counts.unreachable, "time"));
}
