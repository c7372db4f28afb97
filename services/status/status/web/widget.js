// <backstock-progress brand="acme" token="...">: docs/widget.md
// hidden -> a sync starts: shown, by a stream or by polls -> live: hidden again

const HOME = new URL(".", import.meta.url).href;
const FIRST_FRAME_MS = 8000; // some proxies hold it back
const SILENCE_MS = 20000; // a sync speaks every 5 s
const POLL_MS = 5000;
const SLOW_MS = 30000; // between tries
const LANGUAGES = ["de"]; // widget.de.js

export const TEXTS = {
	"title.connecting": "Connecting your store",
	"title.recent": "Loading your latest orders",
	"title.backfilling": "Loading your store’s history",
	"title.catching_up": "Catching up with the latest changes",
	"title.auditing": "Checking every total against Shopify",
	"title.live": "Your store is live",
	"title.attention": "The sync needs your attention",
	"phase.preparing": "Shopify prepares",
	"phase.promoting": "Finishing",
	"phase.done": "Complete",
	details: "Details",
	count: "{n} of {all}",
	left: "about {n} left",
	here: "{n} orders are here already",
	proven: "Everything is here and matches Shopify.",
	throttled: "Shopify asks us to wait until {n}.",
	limited: "Shopify shows only the last 60 days of orders.",
	lost: "The connection is lost. Trying again …",
	expired: "This view has expired. Reload the page.",
	unknown: "No store is connected yet.",
};

const STYLE = `
:host{display:block;container-type:inline-size;font:14px/1.45 var(--backstock-font,inherit);font-variant-numeric:tabular-nums;
color:var(--backstock-text,inherit);--m:var(--backstock-muted,color-mix(in srgb,currentcolor 72%,transparent));
--a:var(--backstock-accent,light-dark(#0d7a5f,#4fd1a5));--d:var(--backstock-danger,light-dark(#b3261e,#ff9b90))}
:host([hidden]),[hidden]{display:none!important}
.box{background:var(--backstock-surface,transparent);border:1px solid var(--backstock-border,transparent);
border-radius:var(--backstock-radius,14px);padding:var(--backstock-padding,0)}
.top,.bottom{display:flex;align-items:baseline;gap:4px 16px;justify-content:space-between}
.title,.percent{font-size:1.07em;font-weight:600}
.bar{height:6px;border-radius:99px;background:var(--backstock-track,color-mix(in srgb,currentcolor 12%,transparent));overflow:hidden}
.main{height:var(--backstock-bar,8px);margin:10px 0 8px}
.bar i{display:block;height:100%;border-radius:inherit;background:var(--a);position:relative;overflow:hidden;transition:width .6s ease-out}
.running .main i::after{content:"";position:absolute;inset:0;transform:translateX(-100%);
background:linear-gradient(90deg,#fff0,#fff5,#fff0);animation:sweep 2.6s infinite}
.attention .main i{background:var(--d)}
.bottom{flex-wrap:wrap}
.bottom,summary,.pace,li{color:var(--m)}
.bottom,p,details{font-size:.93em}
p{margin:8px 0 0;color:var(--backstock-warning,light-dark(#7d5200,#f0c674))}
.error{color:var(--d)}
details{margin-top:10px}
summary{cursor:pointer;width:fit-content}
.rows{display:grid;grid-template-columns:auto minmax(60px,1fr) auto 11em;gap:6px 16px;align-items:center;margin-top:10px}
.row{display:contents}
.count,.pace{text-align:end;white-space:nowrap}
ol{list-style:none;display:flex;flex-wrap:wrap;gap:3px 16px;margin:12px 0 0;padding:0}
li::before{content:"";display:inline-block;box-sizing:border-box;width:9px;height:9px;margin-inline-end:6px;border:1.5px solid;border-radius:50%}
.done::before{background:var(--a);border-color:var(--a)}
.active{color:inherit;font-weight:600}
.failed{color:var(--d)}
.failed::before{background:var(--d);border-radius:2px}
.gone{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
@container(max-width:460px){.rows{grid:auto-flow dense/1fr auto}.row .bar,.pace{grid-column:1/-1}}
@keyframes sweep{60%,100%{transform:translateX(100%)}}
@media(prefers-reduced-motion:reduce){.bar i,.bar i::after{transition:none;animation:none!important}}
@media(forced-colors:active){.bar{border:1px solid}.bar i{background:Highlight}}`;

export function duration(seconds, language = "en") {
	const of = (n, unit) => new Intl.NumberFormat(language, { style: "unit", unit }).format(n);
	if (seconds < 56) return of(Math.max(5, Math.ceil(seconds / 5) * 5), "second");
	const minutes = Math.round(seconds / 60);
	return minutes < 60 ? of(minutes, "minute") : `${of(Math.floor(minutes / 60), "hour")} ${of(minutes % 60, "minute")}`;
}

// "span title": <span class=title part=title>
function add(parent, ...kinds) {
	return kinds.map((kind) => {
		const [name, ...classes] = kind.split(" ");
		const made = parent.appendChild(document.createElement(name));
		made.className = made.part = classes.join(" ");
		if (classes[0] === "bar") {
			made.role = "progressbar";
			add(made, "i");
		}
		return made;
	});
}

function setBar(bar, percent, label) {
	bar.firstChild.style.width = `${percent}%`;
	bar.ariaValueNow = Math.floor(percent);
	bar.ariaLabel = label;
}

const get = (url, headers) =>
	fetch(url, { headers, cache: "no-store", signal: AbortSignal.timeout(SILENCE_MS) }).catch(() => null);

class BackstockProgress extends HTMLElement {
	static observedAttributes = ["brand", "token", "token-src", "src", "lang", "details", "label", "persist"];

	#parts;
	#stream;
	#timer;
	#failures = 0; // in a row
	#etag;
	#epoch;
	#refused = 0; // HTTP status
	#renewed = -SLOW_MS;
	#run = 0;
	#texts = TEXTS;
	#own;
	#language = "en";

	get status() {
		return this.progress?.syncStatus;
	}

	set texts(own) {
		this.#own = own;
		if (this.#parts) this.#translate();
	}

	connectedCallback() {
		this.#parts ??= this.#build();
		document.addEventListener("visibilitychange", this.#plan);
		this.#translate();
		this.#plan();
	}

	disconnectedCallback() {
		document.removeEventListener("visibilitychange", this.#plan);
		this.#stop();
	}

	attributeChangedCallback(name, before, now) {
		if (!this.isConnected || !this.#parts || before === now) return;
		if (name === "brand" || name === "src") this.progress = this.#epoch = undefined;
		this.#translate();
		this.#plan();
	}

	async #translate() {
		const language = this.closest("[lang]")?.lang || "en";
		try {
			this.#language = Intl.getCanonicalLocales(language)[0];
		} catch {} // not a language
		const known = LANGUAGES.find((each) => language.startsWith(each));
		const theirs = known && (await import(`${HOME}widget.${known}.js`).catch(() => null));
		this.#texts = { ...TEXTS, ...theirs?.default, ...this.#own };
		this.#render();
	}

	// Once for attributes set together. A hidden tab lets go: browsers have six streams a host.
	#plan = () => {
		this.#stop();
		if (!document.hidden) this.#after(0, () => this.#start());
	};

	#start() {
		this.#etag = "";
		this.#refused = 0;
		if (!this.getAttribute("brand")) return;
		if (this.hasAttribute("token-src") && !this.getAttribute("token")) this.#renew(this.#run);
		else this.#openStream();
	}

	#stop() {
		this.#run += 1;
		this.#close();
		this.#count(0);
	}

	#close() {
		this.#stream?.close();
		clearTimeout(this.#timer);
	}

	#after(ms, next) {
		clearTimeout(this.#timer);
		this.#timer = setTimeout(next, ms * (0.9 + Math.random() / 5));
	}

	#url(what) {
		const base = new URL((this.getAttribute("src") || HOME).replace(/\/*$/, "/"), location.href);
		return new URL(`api/sync/${encodeURIComponent(this.getAttribute("brand"))}/${what}`, base);
	}

	#openStream() {
		this.#close();
		const url = this.#url("events");
		url.searchParams.set("token", this.getAttribute("token") ?? "");
		const stream = (this.#stream = new EventSource(url));
		this.#after(FIRST_FRAME_MS, () => this.#poll());
		stream.onopen = () => this.#count(0);
		stream.onmessage = ({ data, lastEventId }) => {
			this.#show(JSON.parse(data), lastEventId);
			this.#after(SILENCE_MS, () => this.#poll());
		};
		stream.addEventListener("end", () => {
			stream.close();
			this.#after(SLOW_MS, () => this.#poll());
		});
		stream.onerror = () => {
			this.#count(this.#failures + 1);
			// a poll tells why
			if (stream.readyState === EventSource.CLOSED) this.#poll();
		};
	}

	async #poll(since = Date.now()) {
		this.#close();
		const [run, was] = [this.#run, this.status];
		const headers = { Authorization: `Bearer ${this.getAttribute("token")}`, "If-None-Match": this.#etag };
		const answer = await get(this.#url("status"), headers);
		const doc = answer?.ok && (await answer.json().catch(() => null));
		if (run !== this.#run) return;
		const status = answer?.status;
		if (doc) {
			this.#etag = answer.headers.get("ETag") ?? "";
			this.#show(doc, this.#etag.replace(/^W\/"|[."].*$/g, ""));
		}
		if ([401, 403, 404].includes(status)) this.#refuse(status);
		if (run !== this.#run || status === 401 || status === 403) return;
		const failed = !doc && status !== 304 && status !== 404;
		this.#count(failed ? this.#failures + 1 : 0);
		const resting = status === 404 || this.status === "live";
		const again = was === "live" || Date.now() - since > 2 * SLOW_MS;
		if (again && !failed && !resting) return this.#openStream();
		this.#after(resting ? SLOW_MS : Math.min(POLL_MS * 2 ** this.#failures, SLOW_MS), () => this.#poll(since));
	}

	async #renew(run) {
		const wait = this.#renewed + SLOW_MS - performance.now();
		if (wait > 0) return this.#after(wait, () => this.#renew(run));
		this.#renewed = performance.now();
		const answer = await get(this.getAttribute("token-src"));
		const { token } = (await answer?.json().catch(() => 0)) ?? 0;
		if (run !== this.#run) return;
		if (token === this.getAttribute("token")) return this.#after(SLOW_MS, () => this.#poll());
		if (token) return this.setAttribute("token", token);
		this.#count(this.#failures + 1);
		this.#renew(run);
	}

	// The page or token-src has a new one.
	#refuse(status) {
		const run = this.#run;
		this.#refused = status;
		this.#render();
		this.#tell(status === 404 ? "error" : "tokenexpired", { status });
		if (status !== 404 && this.hasAttribute("token-src") && run === this.#run) this.#renew(run);
	}

	#count(failures) {
		this.#failures = failures;
		this.#render();
	}

	#tell(what, detail) {
		this.dispatchEvent(new CustomEvent(`backstock-${what}`, { detail, bubbles: true, composed: true }));
	}

	#show(doc, id) {
		const epoch = id.slice(0, id.lastIndexOf("-"));
		if (epoch === this.#epoch && doc.version < this.progress.version) return; // older, late
		const before = this.status;
		this.#epoch = epoch;
		this.progress = doc;
		this.#refused = 0;
		this.#render();
		this.#tell("progress", doc);
		if (doc.syncStatus === "live" && before !== "live") this.#tell("live", doc);
	}

	#build() {
		const root = this.attachShadow({ mode: "open" });
		const sheet = new CSSStyleSheet(); // <style> would break strict policies
		sheet.replaceSync(STYLE);
		root.adoptedStyleSheets = [sheet];
		const [box] = add(root, "div box");
		const [top, main, bottom, error, note, details, news] = add(
			box, "div top", "div bar main", "div bottom", "p error", "p note", "details details", "span gone");
		const [[title, percent], [detail, eta]] = [add(top, "span title", "span percent"), add(bottom, "span detail", "span eta")];
		const [summary, rows, steps] = add(details, "summary", "div rows", "ol milestones");
		news.ariaLive = "polite";
		details.open = this.getAttribute("details") !== "closed";
		return { box, title, percent, main, detail, eta, error, note, details, summary, rows, steps, news };
	}

	#say(key, values, otherwise = key.replace(/.*\./, "").replaceAll("_", " ")) {
		const text = this.#texts[key] ?? otherwise[0].toUpperCase() + otherwise.slice(1);
		return text.replace(/{(\w+)}/g, (all, name) => values?.[name] ?? all);
	}

	#render() {
		const [doc, refused] = [this.progress, this.#refused];
		const { box, main, details, rows, steps, news, ...lines } = this.#parts;
		const { syncStatus: status, percent, recent, etaSeconds, lastError } = doc ?? { syncStatus: "connecting", percent: 0 };
		const live = status === "live";
		const running = doc && !live && status !== "attention" && !refused;
		const { format } = new Intl.NumberFormat(this.#language);
		const texts = {
			title: this.getAttribute("label") ?? this.#say(`title.${status}`),
			percent: doc ? `${Math.floor(percent)}%` : "",
			detail: live ? this.#say("proven") : recent?.ordersVisible ? this.#say("here", { n: format(recent.ordersVisible) }) : "",
			eta: running && etaSeconds ? this.#say("left", { n: duration(etaSeconds, this.#language) }) : "",
			error: refused
				? this.#say(refused === 404 ? "unknown" : "expired")
				: lastError ? this.#say(`error.${lastError.code}`, 0, `${lastError.message} ${lastError.action}`) : "",
			note: this.#notes(doc).join(" "),
			summary: this.#say("details"),
		};
		for (const [name, text] of Object.entries(texts)) {
			lines[name].textContent = text;
			lines[name].hidden = !text;
		}
		box.className = `box ${status} ${running ? "running" : ""}`;
		setBar(main, percent, texts.title);
		details.hidden = !doc || live || this.getAttribute("details") === "none";
		if (!details.hidden) {
			doc.resources.forEach((part, index) => this.#row(rows, index, part, format));
			doc.milestones.forEach((step, index) => this.#step(steps, index, step));
		}
		// screen readers hear each tenth
		const said = texts.error || texts.note || (doc ? `${texts.title}, ${Math.floor(percent / 10)}0%` : "");
		if (news.textContent !== said) news.textContent = said;
		this.hidden = !this.hasAttribute("persist") && (live || !(doc || refused % 404));
	}

	#notes(doc) {
		const until = new Date(doc?.throttledUntil ?? 0);
		const notes = this.#failures > 1 ? [this.#say("lost")] : [];
		if (until > Date.now() + 3000) notes.push(this.#say("throttled", { n: until.toLocaleTimeString(this.#language) }));
		for (const { code, message } of doc?.notices ?? []) {
			if (!code.startsWith("paused")) notes.push(this.#say(`notice.${code}`, 0, message));
		}
		if (doc?.limits.historyLimitedTo60Days) notes.push(this.#say("limited"));
		return notes;
	}

	#row(rows, index, { name, phase, expected, promoted, percent, ratePerSecond, etaSeconds }, format) {
		const row = rows.children[index] ?? add(rows, "div row")[0];
		if (!row.firstChild) add(row, "span name", "div bar", "span count", "span pace");
		const [label, bar, count, pace] = row.children;
		label.textContent = this.#say(`resource.${name}`);
		setBar(bar, percent, label.textContent);
		count.textContent = expected ? this.#say("count", { n: format(promoted), all: format(expected) }) : format(promoted);
		const facts = ratePerSecond ? [`${format(Math.round(ratePerSecond))}/s`] : [];
		if (etaSeconds) facts.push(duration(etaSeconds, this.#language));
		pace.textContent = facts.join(" · ") || this.#say(`phase.${phase}`);
	}

	#step(steps, index, { key, label, state }) {
		const step = steps.children[index] ?? add(steps, "li")[0];
		step.className = state;
		step.textContent = this.#say(`milestone.${key}`, 0, label);
		step.ariaCurrent = state === "active" ? "step" : null;
		add(step, "span gone")[0].textContent = ` (${this.#say(`state.${state}`)})`;
	}
}

if (!customElements.get("backstock-progress")) customElements.define("backstock-progress", BackstockProgress);
