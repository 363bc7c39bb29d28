// The facts above the table, and what keeps the page current.

function factsOf(whole) {
  const { discovery, policy, totals, at_unix_ms: now } = whole;
  const source = [discovery.kind ?? "unknown source", discovery.is_fallback && "(the fallback)", discovery.name,
    discovery.server && `from ${discovery.server}`].filter(Boolean).join(" ");
  const next = discovery.next_look_unix_ms === null ? null : discovery.next_look_unix_ms - now;
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
    const isNew = !sections.has(name);
    if (isNew) sections.set(name, new Section(name, (made += 1)));
    sections.get(name).show(all[name]);
    // In one piece, when all its rows are there.
    if (isNew) byId("balancers").append(sections.get(name).element);
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

// Beside this page, whether its address ends in a slash or not.
const address = `${location.pathname.replace(/\/+$/, "")}/json`;
let lastRead = null;
let failure = null;
let timer = 0;
let isReading = false;

async function read() {
  if (isReading) return;
  isReading = true;
  clearTimeout(timer);
  try {
    const answer = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(`it answers ${answer.status}`);
    const all = await answer.json();
    failure = null;
    const isFirst = lastRead === null;
    lastRead = performance.now();
    showAll(all);
    say(Object.keys(all).length === 0 ? "No balancer has been added to this page." : "Live");
    if (isFirst) requestAnimationFrame(() => performance.mark("shown"));
  } catch (error) {
    failure = error;
    console.debug(error);
    say("No answer: the process has ended, or can't be reached. This is its last reading. Trying again.");
  } finally {
    isReading = false;
    if (!document.hidden) timer = setTimeout(read, EVERY_MS);
  }
}

function say(text) {
  if (byId("state").textContent !== text) byId("state").textContent = text;
  tick();
}

function tick() {
  document.body.classList.toggle("stale", failure !== null);
  byId("age").textContent = lastRead === null ? "" : ` · read ${age(performance.now() - lastRead)} ago`;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) read();
});
setInterval(tick, 1000);
read();
