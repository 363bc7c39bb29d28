// A balancer's section: its head, its table of pods and its events. It updates only what has changed.

const MAX_TROUBLE = 10;

/** Whether a column is sorted ascending by default. */
const goesUp = ({ isText = false, isLeastFirst = false }) => isText || isLeastFirst;

const byId = (id) => document.getElementById(id);

class Section {
  constructor(name, index) {
    const element = byId("balancer").content.firstElementChild.cloneNode(true);
    this.element = element;
    this.find = (selector) => element.querySelector(selector);
    this.find("h2").textContent = name;
    element.id = `balancer-${index}`;
    this.rows = new Map();
    this.readings = [];
    this.sort = { id: "state", isReversed: false };
    this.facts = new Map();
    this.cache = {};
    this.addTools();
    this.find("tbody").addEventListener("click", (event) => this.clicked(event));
  }

  addTools() {
    const [input, select] = [this.find("input"), this.find("select")];
    for (const column of COLUMNS) {
      const th = make("th", { className: `c-${column.id}` });
      th.setAttribute("role", "columnheader");
      th.setAttribute("scope", "col");
      const button = make("button", { type: "button", textContent: column.label, title: column.hint ?? "" });
      button.addEventListener("click", () => {
        this.sortBy(column.id, this.sort.id === column.id && !this.sort.isReversed);
      });
      th.append(button);
      this.find("thead tr").append(th);
      select.append(make("option", { value: column.id, textContent: column.id === "state" ? "State, the worst first" : column.label }));
    }
    select.value = this.sort.id;
    select.addEventListener("change", () => this.sortBy(select.value, false));
    input.addEventListener("input", () => this.filter());
    this.markSort();
  }

  sortBy(id, isReversed) {
    this.sort = { id, isReversed };
    this.find("select").value = id;
    this.markSort();
    this.order(true);
  }

  markSort() {
    [...this.find("thead tr").children].forEach((th, index) => {
      const isMine = COLUMNS[index].id === this.sort.id;
      const isAscending = goesUp(COLUMNS[index]) !== this.sort.isReversed;
      if (isMine) th.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
      else th.removeAttribute("aria-sort");
    });
  }

  clicked(event) {
    const tr = event.target.closest("tr");
    // A click that ends a selection, or lies in the text, doesn't count.
    if (!tr || event.target.closest(".whole") || (!event.target.closest("button") && !getSelection().isCollapsed)) return;
    const row = [...this.rows.values()].find((it) => it.tr === tr);
    row?.open(!row.isOpen, this.whole);
  }

  put(selector, text) {
    if (this.cache[selector] === text) return;
    this.cache[selector] = text;
    this.find(selector).textContent = text;
  }

  show(whole) {
    this.whole = whole;
    const seen = new Set();
    for (const pod of whole.endpoints) {
      const key = labelOf(pod);
      seen.add(key);
      if (!this.rows.has(key)) this.rows.set(key, new Row(pod));
      this.rows.get(key).read(pod, whole.at_unix_ms);
    }
    for (const [key, row] of this.rows) {
      if (seen.has(key)) continue;
      row.tr.remove();
      this.rows.delete(key);
    }
    const rows = [...this.rows.values()];
    markStuck(rows);
    const greatest = (of) => rows.reduce((most, row) => Math.max(most, of(row.pod) ?? 0), 1e-9);
    const slowest = { latency: greatest((pod) => pod.p95_seconds), share: greatest((pod) => pod.share) };
    rows.forEach((row) => row.show(whole, slowest));
    this.find("table").classList.toggle("no-zone", rows.every((row) => !row.pod.zone));
    this.order(false);
    this.filter();
    this.showHead(whole);
    this.showEvents(whole.events);
  }

  showHead(whole) {
    const { endpoints } = whole.totals ?? {};
    const speed = endpoints ? recent(this.readings, whole.at_unix_ms, endpoints, failuresOf(endpoints)).rate : null;
    this.put(".summary", `${number(whole.available)} of ${many(whole.size, "pod")} ${whole.size === 1 ? "gets" : "get"} requests` +
      (speed === null ? "" : `, ${rate(speed)} a second`));
    const trouble = whole.trouble.slice(0, MAX_TROUBLE);
    if (whole.trouble.length > MAX_TROUBLE) trouble.push(`and ${number(whole.trouble.length - MAX_TROUBLE)} more`);
    this.list(".trouble", trouble.join("\n"), () => trouble.map((text) => make("li", { textContent: text })));
    for (const [name, text, isBad] of factsOf(whole)) this.fact(name, text, isBad);
  }

  fact(name, text, isBad = false) {
    if (!this.facts.has(name)) {
      const dd = make("dd");
      const div = make("div");
      div.append(make("dt", { textContent: name }), dd);
      this.find("dl").append(div);
      this.facts.set(name, { dd, div });
    }
    const { dd, div } = this.facts.get(name);
    if (dd.textContent !== text) dd.textContent = text;
    div.hidden = text === "";
    div.className = isBad ? "bad" : "";
  }

  list(selector, state, build) {
    if (this.cache[selector] === state) return;
    this.cache[selector] = state;
    this.find(selector).replaceChildren(...build());
  }

  showEvents(events) {
    this.put("summary", `Events of the last hour: ${number(events.length)}`);
    const last = events.at(-1);
    this.list("ol", `${events.length} ${last?.at_unix_ms} ${last && eventText(last)}`, () => events.toReversed().map((event) => {
      const li = make("li");
      const time = make("time", { dateTime: new Date(event.at_unix_ms).toISOString(), textContent: clock(event.at_unix_ms) });
      li.append(time, " ", eventText(event));
      return li;
    }));
  }

  /** Moves rows that are out of order. Unless the user asked for it, not under a selection, which would be lost. */
  order(isAsked) {
    const body = this.find("tbody");
    const selection = getSelection();
    if (!isAsked && !selection.isCollapsed && body.contains(selection.anchorNode)) return;
    const column = COLUMNS.find(({ id }) => id === this.sort.id);
    const sign = goesUp(column) === this.sort.isReversed ? -1 : 1;
    const keyed = [...this.rows.values()].map((row) => ({ row, key: column.key(row), label: labelOf(row.pod) }));
    const byText = new Intl.Collator("en", { numeric: true }).compare;
    keyed.sort((a, b) => sign * (column.isText ? byText(a.key, b.key) : a.key - b.key) || byText(a.label, b.label));
    const focused = document.activeElement;
    let next = body.firstElementChild;
    for (const { row } of keyed) {
      if (row.tr === next) next = next.nextElementSibling;
      else body.insertBefore(row.tr, next);
    }
    if (focused !== document.activeElement && body.contains(focused)) focused.focus({ preventScroll: true });
  }

  filter() {
    const wanted = this.find("input").value.trim().toLowerCase();
    let shown = 0;
    for (const { tr, pod } of this.rows.values()) {
      const text = wanted && [labelOf(pod), pod.zone, pod.node, verdictOf(pod)[0], pod.why].join(" ").toLowerCase();
      const isShown = !wanted || text.includes(wanted);
      shown += isShown ? 1 : 0;
      if (tr.hidden === isShown) tr.hidden = !isShown;
    }
    this.put(".shown", wanted ? `${number(shown)} of ${many(this.rows.size, "pod")}` : "");
  }
}
