// The facts above the table, and what keeps the page current.

function factsOf(whole) {
  const { discovery, policy, totals, at_unix_ms: now } = whole;
  const source = [discovery.kind ?? "unknown source", discovery.is_fallback && "(the fallback)", discovery.name,
    discovery.server && `from ${discovery.server}`].filter(Boolean).join(" ");
  const next = discovery.next_refresh_unix_ms === null ? null : discovery.next_refresh_unix_ms - now;
  const freshness = [
    discovery.staleness_seconds === null ? "not answered yet" : `answered ${seconds(discovery.staleness_seconds)} ago`,
    discovery.ttl_seconds !== null && `TTL ${seconds(discovery.ttl_seconds)}`,
    next !== null && (next <= 0 ? "asked now" : `asked again in ${seconds(next / 1000)}`),
  ].filter(Boolean).join(", ");
  const error = discovery.last_error;
  const facts = [
    ["Discovery", source, discovery.is_failing],
    ["The set of pods", freshness, discovery.is_failing],
    ["Discovery's last error", error ? `${error.text} (${age(now - error.at_unix_ms)} ago)` : "", discovery.is_failing],
    ["Policy", [policy.name, policy.is_load_aware && "looks at loads", policy.is_near_first && "near pods first",
      whole.is_panic && "panic: ejections are ignored"].filter(Boolean).join(", "), whole.is_panic],
  ];
  return totals ? facts.concat(totalsOf(totals)) : facts;
}

function totalsOf(totals) {
  const all = totals.endpoints;
  const { retries, waits } = totals;
  const again = retries.answered + retries.lost + retries.unprocessed + retries.unsent;
  const waited = [["discovery", waits.discovery], ["a pod that accepts", waits.unreachable],
    ["a connection", waits.connection], ["its pod", waits.pod]].filter(([, it]) => it.begun > 0)
    .map(([what, it]) => `${number(it.begun)} for ${what}${it.begun > it.ended ? ` (${number(it.begun - it.ended)} now)` : ""}`);
  return [
    ["Counted", [many(all.requests, "request"), many(failuresOf(all), "failure"),
      all.overloads > 0 && many(all.overloads, "overload"), all.cancelled > 0 && `${number(all.cancelled)} cancelled`,
      totals.unplaced > 0 && `${number(totals.unplaced)} that no pod took`].filter(Boolean).join(", ")],
    ["Sent again", [again > 0 && many(again, "retry", "retries"), totals.hedges > 0 && many(totals.hedges, "hedge"),
      retries.budget_refused > 0 && `${number(retries.budget_refused)} not, as the budget was spent`].filter(Boolean).join(", ")],
    ["Waited", waited.join(", ")],
  ];
}

const EVERY_MS = 2000;
/** The page gives up when nothing arrives for this long. Each piece of an answer restarts it: thousands of pods take long on a slow line. */
const SILENCE_MS = 10000;
/** The longest pause after a slow reading. */
const MAX_PAUSE_MS = 30000;

const sections = new Map();
let made = 0;

function showAll(all) {
  const names = Object.keys(all);
  for (const [name, section] of sections) {
    if (names.includes(name)) continue;
    section.element.remove();
    sections.delete(name);
  }
  for (const name of names) {
    if (!sections.has(name)) sections.set(name, new Section(name, (made += 1)));
    const section = sections.get(name);
    section.show(all[name]);
    // Shown in one piece, once all its rows exist.
    if (!section.element.isConnected) byId("balancers").append(section.element);
  }
  showOverview(names, all);
}

function showOverview(names, all) {
  const nav = byId("overview");
  const wrong = names.reduce((sum, name) => sum + all[name].trouble.length, 0);
  document.title = wrong > 0 ? `(${number(wrong)}) tower-headless` : "tower-headless";
  const state = names.map((name) => `${name} ${all[name].trouble.length}`).join("\n");
  nav.hidden = names.length < 2;
  if (nav.dataset.state === state) return;
  nav.dataset.state = state;
  nav.replaceChildren(...names.map((name) => {
    const count = all[name].trouble.length;
    return make("a", {
      href: `#${sections.get(name).element.id}`,
      className: count > 0 ? "bad" : "good",
      textContent: count > 0 ? `${name}: ${number(count)} wrong` : name,
    });
  }));
}

// The JSON is beside this page, whether the page's address ends in a slash or not.
const address = `${location.pathname.replace(/\/+$/, "")}/json`;
let lastRead = null;
let failure = null;
let timer = 0;
let isReading = false;
/** Bytes of the current answer so far. */
let received = 0;

/** Why there is nothing to show, in words for the reader. */
class Fault extends Error {}

async function ask() {
  const control = new AbortController();
  let silence = 0;
  const hear = () => {
    clearTimeout(silence);
    silence = setTimeout(() => control.abort(), SILENCE_MS);
  };
  let answer = null;
  try {
    hear();
    // Followed, a redirect to another site would look as if nobody had answered.
    answer = await fetch(address, { cache: "no-store", redirect: "manual", signal: control.signal });
    return contentOf(answer, await textOf(answer, hear));
  } catch (error) {
    if (error instanceof Fault) throw error;
    if (answer === null) throw new Fault("No answer: the process has ended, or can't be reached.");
    const come = `after ${number(Math.round(received / 1000))} kB`;
    throw new Fault(control.signal.aborted ? `The answer has stopped coming, ${come}.` : `The answer broke off, ${come}.`);
  } finally {
    clearTimeout(silence);
    received = 0;
  }
}

async function textOf(answer, hear) {
  const pieces = answer.body?.getReader();
  const decoder = new TextDecoder();
  let text = "";
  while (pieces) {
    hear();
    const { done, value } = await pieces.read();
    if (done) break;
    received += value.length;
    text += decoder.decode(value, { stream: true });
  }
  return text;
}

function contentOf(answer, text) {
  if (answer.type === "opaqueredirect") throw new Fault("It redirects to another address, as a proxy with a login does.");
  const isPlain = answer.headers.get("content-type")?.startsWith("text/plain") && text.trim() !== "";
  if (!answer.ok) throw new Fault(`It answers ${answer.status}${isPlain ? `: ${text.trim().slice(0, 300)}` : ""}.`);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Fault(`This is not the page's JSON: ${error.message}.`);
  }
}

async function read() {
  if (isReading) return;
  isReading = true;
  clearTimeout(timer);
  const begun = performance.now();
  try {
    const all = await ask();
    showAll(all);
    failure = null;
    const isFirst = lastRead === null;
    lastRead = performance.now();
    say(Object.keys(all).length === 0 ? "No balancer has been added to this page." : "Live");
    if (isFirst) requestAnimationFrame(() => performance.mark("shown"));
  } catch (error) {
    failure = error;
    console.debug(error);
    const what = error instanceof Fault ? error.message : `The answer can't be shown: ${error.message}.`;
    say(`${what}${lastRead === null ? "" : " This is its last reading."} Trying again.`);
  } finally {
    isReading = false;
    // Ask for at most half of the time: a slow answer costs the process and the network much.
    const pause = Math.min(Math.max(EVERY_MS, performance.now() - begun), MAX_PAUSE_MS);
    if (!document.hidden) timer = setTimeout(read, pause);
  }
}

function say(text) {
  if (byId("state").textContent !== text) byId("state").textContent = text;
  tick();
}

function tick() {
  document.body.classList.toggle("stale", failure !== null);
  const last = lastRead === null ? "" : ` · read ${age(performance.now() - lastRead)} ago`;
  byId("age").textContent = last + (received < 1e6 ? "" : ` · ${(received / 1e6).toFixed(1)} MB of the next have come`);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) read();
});
setInterval(tick, 1000);
read();
