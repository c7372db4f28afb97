// All connections, for operators: what needs help comes first. The API key is asked for, never in an address.

import { STATUSES, at, clock, counted, make, number, pill, words } from "./format.js";
import { ask, forgetKey, saveKey, savedKey } from "./key.js";
import { duration } from "./widget.js";

const AGAIN_MS = 3000;
const AGAIN_MOST_MS = 30000;
const PAGE = 200; // connections
const LATE_SECONDS = 60; // rows that wait longer are worth a look
const ORDER = ["attention", "connecting", "recent", "backfilling", "catching_up", "auditing", "live", "removed"];

let wanted = 1; // pages that are shown
let failures = 0;
let timer;
let runs = 0;

async function read() {
  const found = [];
  let [after, asOf] = ["", ""];
  for (let page = 0; page < wanted && after !== null; page += 1) {
    const answer = await ask(`api/operations?limit=${PAGE}&after=${encodeURIComponent(after)}`);
    if (!answer.ok) throw answer;
    const body = await answer.json();
    found.push(...body.connections);
    [after, asOf] = [body.next, body.asOf];
  }
  return { found, asOf, more: after !== null };
}

async function load() {
  clearTimeout(timer);
  if (document.hidden || !savedKey()) return;
  const run = (runs += 1);
  try {
    const found = await read();
    if (run !== runs || !savedKey()) return; // a newer one is under way, or the key was forgotten meanwhile
    show(found);
    failures = 0;
  } catch (problem) {
    if (run !== runs || !savedKey()) return;
    if (problem.status === 401) return enter("This key is not the one that the service runs with.");
    failures += 1;
    say("No answer at the moment. Trying again …");
  }
  timer = setTimeout(load, Math.min(AGAIN_MS * 2 ** failures, AGAIN_MOST_MS) * (0.9 + Math.random() / 5));
}

// Heard by screen readers: only what changes is put there.
function say(text) {
  if (at("news").textContent !== text) at("news").textContent = text;
  at("as-of").hidden = Boolean(text);
}

function show({ found, asOf, more }) {
  at("enter").hidden = true;
  at("page").hidden = at("leave").hidden = at("meaning").hidden = false;
  say("");
  at("as-of").textContent = `as of ${clock.format(new Date(asOf))}`;
  at("more").hidden = !more;
  found.sort((one, other) => rank(one) - rank(other) || one.brandId.localeCompare(other.brandId));
  showTotals(found);
  const sought = at("filter").value.trim().toLowerCase();
  const fitting = found.filter(({ brandId, shop }) => `${brandId} ${shop}`.toLowerCase().includes(sought));
  const focused = document.activeElement?.dataset.brand;
  at("rows").replaceChildren(...(fitting.length ? fitting.map(row) : [empty(found.length ? "Nothing fits." : "No store is connected yet: backstock connect SHOP --brand B")]));
  if (focused) document.querySelector(`[data-brand="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

const rank = ({ state }) => (ORDER.includes(state) ? ORDER.indexOf(state) : 0);

function showTotals(found) {
  const count = (test) => number.format(found.filter(test).length);
  const sum = (name) => found.reduce((total, each) => total + each[name], 0);
  const tiles = [["Live", count(({ state }) => state === "live")],
    ["Syncing", count(({ state }) => !["live", "attention", "removed"].includes(state))],
    ["Need attention", count(({ state }) => state === "attention")],
    ["Rows a second", number.format(Math.round(sum("rowsPerSecond")))]];
  at("tiles").replaceChildren(...tiles.map(([label, value]) => {
    const tile = make("div", "card tile");
    tile.append(make("span", "", label), make("strong", "", value));
    return tile;
  }));
}

function row(each) {
  const line = make("tr");
  const brand = make("th");
  brand.scope = "row";
  const link = brand.appendChild(make("a", "", each.brandId));
  link.href = `./?brand=${encodeURIComponent(each.brandId)}`;
  link.dataset.brand = each.brandId;
  brand.append(make("small", "", each.shop));
  const state = make("td");
  state.append(pill(make("span"), STATUSES[each.state] ?? [words(each.state), ""]));
  const running = !["live", "attention", "removed"].includes(each.state);
  const left = running && each.etaSeconds ? ` · ${duration(each.etaSeconds)}` : "";
  line.append(brand, state, make("td", "n", `${Math.floor(each.percent)}%${left}`),
    make("td", each.lagSeconds > LATE_SECONDS ? "n late" : "n", each.lagSeconds ? seconds(each.lagSeconds) : "0 s"),
    make("td", "n", number.format(Math.round(each.rowsPerSecond))), make("td", "n", number.format(each.webhooksPerMinute)),
    make("td", "n", since(latest(each))), trouble(each));
  return line;
}

const seconds = (count) => (count < 60 ? `${Math.ceil(count)} s` : duration(count));
const latest = ({ lastEventAt, lastWebhookAt }) => [lastEventAt, lastWebhookAt].filter(Boolean).sort().at(-1);

function since(moment) {
  if (!moment) return "–";
  return `${seconds(Math.max((Date.now() - new Date(moment)) / 1000, 1))} ago`;
}

function trouble({ error, deadLetters }) {
  const cell = make("td", "wrong");
  if (error) cell.append(make("strong", "", error.message), ` ${error.action}`);
  if (deadLetters) cell.append(make("p", "", `${counted(deadLetters, "dead letter", "dead letters")}: backstock dead-letters list`));
  return cell;
}

function empty(text) {
  const line = make("tr");
  line.appendChild(make("td", "empty", text)).colSpan = 8;
  return line;
}

function enter(refusal = "") {
  forgetKey();
  clearTimeout(timer);
  at("page").hidden = at("leave").hidden = at("meaning").hidden = true;
  at("enter").hidden = false;
  at("refusal").textContent = refusal;
  at("form").elements.key.focus();
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  saveKey(at("form").elements.key.value.trim());
  at("form").reset();
  load();
});
at("leave").addEventListener("click", () => enter());
at("more").addEventListener("click", () => {
  wanted += 1;
  load();
});
at("filter").addEventListener("input", load);
document.addEventListener("visibilitychange", load);
if (savedKey()) load();
else enter();
