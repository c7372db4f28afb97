// <backstock-progress brand="acme" token="..." src="https://status.example.com"></backstock-progress>
//
// Shows how far a store's sync is. Events arrive by SSE; where that does not work, by polling.
// Attributes: brand, token, src (default: where this file came from), persist (stay when live), label.
// Style: --backstock-accent, --backstock-text, --backstock-muted, --backstock-track, --backstock-surface,
//        --backstock-border, --backstock-danger, --backstock-radius, --backstock-font;
//        parts: box, title, percent, bar, error.
// Events: backstock-progress (detail: the document), backstock-live, backstock-error (detail: {status}).

const HOME = new URL(".", import.meta.url).href;
const FIRST_FRAME_MS = 8000; // a proxy that buffers opens the stream and lets nothing through
const POLL_MS = 5000;
const POLL_LIVE_MS = 30000;
const STREAM_AGAIN_MS = 60000;
const REFUSED = [401, 403, 404]; // asking again does not help; a new token or brand does

const STYLE = `
:host { display: block; font-family: var(--backstock-font, inherit); font-size: 14px; line-height: 1.45;
  --a: var(--backstock-accent, light-dark(#0d7a5f, #4fd1a5)); --t: var(--backstock-text, light-dark(#17211d, #e8efec));
  --m: var(--backstock-muted, light-dark(#5b6b64, #9aaba4)); --k: var(--backstock-track, light-dark(#e4ebe8, #2a3632));
  --d: var(--backstock-danger, light-dark(#b3261e, #ff9b90)); color: var(--t); }
:host([hidden]) { display: none; }
.box { background: var(--backstock-surface, transparent); border: 1px solid var(--backstock-border, transparent);
  border-radius: var(--backstock-radius, 14px); padding: var(--backstock-padding, 0); }
.top { display: flex; align-items: baseline; gap: 12px; justify-content: space-between; }
.title { font-size: 1.07em; font-weight: 600; }
.percent { font-size: 1.07em; font-weight: 650; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { height: var(--backstock-bar, 8px); margin: 10px 0 8px; border-radius: 99px; background: var(--k); overflow: hidden; }
.fill { height: 100%; width: 0; min-width: 8px; border-radius: inherit; background: var(--a); position: relative; overflow: hidden;
  transition: width .6s cubic-bezier(.2, .7, .2, 1); }
.running .fill::after { content: ""; position: absolute; inset: 0; transform: translateX(-100%);
  background: linear-gradient(90deg, transparent, rgb(255 255 255 / .38), transparent); animation: sweep 2.2s ease-in-out infinite; }
.bottom { display: flex; gap: 4px 16px; justify-content: space-between; flex-wrap: wrap; color: var(--m); font-size: .93em;
  font-variant-numeric: tabular-nums; }
.error { margin-top: 8px; color: var(--d); font-size: .93em; }
.attention .fill { background: var(--d); }
.gone { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@keyframes sweep { 60%, 100% { transform: translateX(100%); } }
@media (prefers-reduced-motion: reduce) { .fill { transition: none; } .running .fill::after { animation: none; } }
`;

const TITLES = {
  connecting: "Connecting your store",
  recent: "Loading your latest orders",
  backfilling: "Loading your store's history",
  catching_up: "Catching up with the latest changes",
  auditing: "Checking every total against Shopify",
  live: "Your store is live",
  attention: "The sync needs your attention",
};

const number = new Intl.NumberFormat("en");

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(5, Math.ceil(seconds / 5) * 5)} s`;
  if (seconds < 3600) return `${Math.ceil(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.ceil((seconds % 3600) / 60)} min`;
}

const element = (name, className, parent) => {
  const made = document.createElement(name);
  made.className = className;
  return parent.appendChild(made);
};

class BackstockProgress extends HTMLElement {
  static observedAttributes = ["brand", "token", "src"];

  #parts;
  #stream;
  #timer;
  #etag;
  #said;
  #run = 0;
  #planned = false;

  // A hidden tab lets go of its connection: browsers open only six to a host over HTTP/1.1.
  #onVisibility = () => (document.hidden ? this.#stop() : this.#plan());

  connectedCallback() {
    if (!this.#parts) this.#build();
    document.addEventListener("visibilitychange", this.#onVisibility);
    this.#plan();
  }

  disconnectedCallback() {
    document.removeEventListener("visibilitychange", this.#onVisibility);
    this.#stop();
  }

  attributeChangedCallback(_name, before, now) {
    if (this.#parts && this.isConnected && before !== now) this.#plan();
  }

  // Several attributes may change at once: one new start for all of them.
  #plan() {
    if (this.#planned) return;
    this.#planned = true;
    queueMicrotask(() => {
      this.#planned = false;
      if (this.isConnected) this.#start();
    });
  }

  #url(what) {
    const brand = encodeURIComponent(this.getAttribute("brand") ?? "");
    const base = (this.getAttribute("src") || HOME).replace(/\/*$/, "/");
    return new URL(`api/sync/${brand}/${what}`, new URL(base, location.href));
  }

  #build() {
    const root = this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet(); // not a <style> element: a strict content security policy forbids those
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    const box = element("div", "box", root);
    box.part = "box";
    const top = element("div", "top", box);
    const title = element("span", "title", top);
    title.part = "title";
    const percent = element("span", "percent", top);
    percent.part = "percent";
    const bar = element("div", "bar", box);
    bar.part = "bar";
    bar.setAttribute("role", "progressbar");
    bar.setAttribute("aria-valuemin", "0");
    bar.setAttribute("aria-valuemax", "100");
    const fill = element("div", "fill", bar);
    const bottom = element("div", "bottom", box);
    const detail = element("span", "", bottom);
    const eta = element("span", "", bottom);
    const error = element("div", "error", box);
    error.part = "error";
    const news = element("span", "gone", box);
    news.setAttribute("aria-live", "polite");
    this.#parts = { box, title, percent, bar, fill, detail, eta, error, news };
    title.textContent = TITLES.connecting;
  }

  #start() {
    this.#stop();
    this.#etag = undefined;
    if (!this.getAttribute("brand")) return;
    this.#openStream();
  }

  #stop() {
    this.#run += 1; // answers of an earlier run are ignored
    this.#stream?.close();
    this.#stream = undefined;
    clearTimeout(this.#timer);
  }

  #openStream() {
    this.#stream?.close();
    const url = this.#url("events");
    const token = this.getAttribute("token");
    if (token) url.searchParams.set("token", token);
    const stream = new EventSource(url);
    this.#stream = stream;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fallBack(), FIRST_FRAME_MS);
    stream.onmessage = (event) => {
      clearTimeout(this.#timer);
      this.#show(JSON.parse(event.data));
    };
    stream.addEventListener("end", () => {
      stream.close();
      clearTimeout(this.#timer);
      if (this.hasAttribute("persist")) this.#timer = setTimeout(() => this.#poll(this.#run), POLL_LIVE_MS);
    });
    stream.onerror = () => {
      // CONNECTING: the browser tries again by itself. CLOSED: it was refused, so polling finds out why.
      if (stream.readyState === EventSource.CLOSED) this.#fallBack();
    };
  }

  #fallBack() {
    this.#stream?.close();
    this.#stream = undefined;
    this.#poll(this.#run, Date.now());
  }

  async #poll(run, since = 0) {
    let live = false;
    let refused = 0;
    try {
      const headers = {};
      const token = this.getAttribute("token");
      if (token) headers.Authorization = `Bearer ${token}`;
      if (this.#etag) headers["If-None-Match"] = this.#etag;
      const answer = await fetch(this.#url("status"), { headers, cache: "no-store" });
      if (run !== this.#run) return;
      live = this.status === "live";
      if (answer.ok) {
        this.#etag = answer.headers.get("ETag");
        const doc = await answer.json();
        if (run !== this.#run) return;
        this.#show(doc);
        live = doc.syncStatus === "live";
      } else if (REFUSED.includes(answer.status)) {
        refused = answer.status;
      }
    } catch {
      if (run !== this.#run) return; // offline: the next poll may do better
    }
    if (refused) return this.#refuse(refused);
    if (live && !this.hasAttribute("persist")) return;
    clearTimeout(this.#timer);
    const again = !live && Date.now() - since > STREAM_AGAIN_MS;
    const next = again ? () => this.#openStream() : () => this.#poll(run, since);
    this.#timer = setTimeout(next, live ? POLL_LIVE_MS : POLL_MS);
  }

  #refuse(status) {
    const { error, box } = this.#parts;
    box.classList.remove("running");
    error.textContent =
      status === 404 ? "No store is connected here yet." : "The link to this store's progress has expired. Reload the page.";
    this.dispatchEvent(new CustomEvent("backstock-error", { detail: { status }, bubbles: true, composed: true }));
  }

  get status() {
    return this.progress?.syncStatus;
  }

  #show(doc) {
    const before = this.status;
    this.progress = doc;
    const { box, title, percent, bar, fill, detail, eta, error } = this.#parts;
    const whole = Math.floor(doc.percent);
    const live = doc.syncStatus === "live";
    title.textContent = this.getAttribute("label") ?? TITLES[doc.syncStatus] ?? doc.syncStatus;
    percent.textContent = `${whole}%`;
    fill.style.width = `${doc.percent}%`;
    box.className = `box ${live || doc.syncStatus === "attention" ? "" : "running"} ${doc.syncStatus}`;
    bar.setAttribute("aria-valuenow", String(whole));
    bar.setAttribute("aria-label", title.textContent);
    detail.textContent = this.#detail(doc);
    eta.textContent = doc.etaSeconds === null ? "" : `about ${duration(doc.etaSeconds)} left`;
    error.textContent = doc.lastError ? `${doc.lastError.message} ${doc.lastError.action}` : "";
    this.#announce(`${title.textContent}, ${whole - (whole % 10)} percent`);
    this.hidden = live && !this.hasAttribute("persist");
    this.dispatchEvent(new CustomEvent("backstock-progress", { detail: doc, bubbles: true, composed: true }));
    if (live && before !== "live") {
      this.dispatchEvent(new CustomEvent("backstock-live", { detail: doc, bubbles: true, composed: true }));
    }
  }

  #detail(doc) {
    if (doc.syncStatus === "live") return "Everything is here and matches Shopify.";
    const busy = doc.resources.filter((part) => part.expected && part.phase !== "waiting");
    if (doc.syncStatus === "backfilling" && busy.length) {
      return busy.map((part) => `${number.format(part.promoted)} of ${number.format(part.expected)} ${part.name}`).join(" · ");
    }
    return doc.recent.ordersVisible ? `${number.format(doc.recent.ordersVisible)} orders are here already` : "";
  }

  // Screen readers hear each tenth, not each frame.
  #announce(text) {
    if (text === this.#said) return;
    this.#said = text;
    this.#parts.news.textContent = text;
  }
}

if (!customElements.get("backstock-progress")) customElements.define("backstock-progress", BackstockProgress);
