// The dashboard page. The widget holds the one connection; its events carry the document to the rest.
// Everything shown goes in as text, never as markup.

import { OrdersChart } from "./chart.js";
import { STATUSES, at, clock, counted, dateTime, dayAndYear, exact, make, moment, money, number, pill, words } from "./format.js";
import { issueToken, savedKey } from "./key.js";
import { TEXTS, duration } from "./widget.js";

const DATA_MS = 1000; // the server answers from memory when that is too often
const DATA_LIVE_MS = 10000;
const DATA_LONGEST_MS = 20000; // without an answer
const WORTH_TELLING_MS = 3000; // shorter pauses are the usual pace
const NAMES = { orders: "Orders", customers: "Customers", products: "Products" };
const PHASES = {
  waiting: ["Waiting", ""],
  preparing: ["Shopify prepares", "busy"],
  downloading: ["Downloading", "busy"],
  promoting: ["Finishing", "busy"],
  done: ["Complete", "good"],
};
const NOT_GRANTED = ["Not granted", "warn"];
const CHILDREN = { lineItems: ["line item", "line items"], refunds: ["refund", "refunds"], variants: ["variant", "variants"] };

const asked = new URLSearchParams(location.search);
const brand = asked.get("brand");
const widget = at("progress");
const chart = new OrdersChart(at("chart"), at("readout"));
let live = false;
let lost = false; // the connection
let shown = null; // the newest document
let data = null;
let known = null; // ids of the newest orders as shown last

// --- the document

function showDocument(doc) {
  shown = doc;
  at("page").classList.remove("nothing");
  at("store").hidden = false;
  at("shop").textContent = doc.shop || doc.brandId;
  pill(at("status"), STATUSES[doc.syncStatus] ?? [words(doc.syncStatus), "busy"]);
  document.title = `${doc.syncStatus === "live" ? "Live" : `${Math.floor(doc.percent)}%`} · ${doc.shop || doc.brandId}`;
  showMilestones(doc.milestones);
  showError(doc.lastError);
  setLost(false);
  showNotes();
  showResources(doc);
  showProof(doc.audit);
}

function showMilestones(milestones) {
  at("milestones").replaceChildren(
    ...milestones.map(({ label, state, at: reached }) => {
      const item = make("li", state, label);
      if (state === "active") item.setAttribute("aria-current", "step");
      const time = make("time", "", state === "done" && reached ? moment(new Date(reached)) : "");
      if (reached) time.dateTime = reached;
      item.append(time);
      return item;
    }),
  );
}

// Screen readers hear an alert whenever its text is set, the same one, too.
function setText(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

function showError(error) {
  at("error").hidden = !error;
  widget.classList.toggle("told", Boolean(error));
  setText("error-message", error?.message ?? "");
  setText("error-action", error?.action ?? "");
}

function showNotes() {
  const notes = [...(lost ? [TEXTS.lost] : []), ...(shown ? limits(shown) : [])];
  at("limits").hidden = !notes.length;
  at("limits").textContent = notes.join(" ");
}

// The widget tells it, too; its line is hidden on this page.
function setLost(now) {
  if (lost === now) return;
  lost = now;
  showNotes();
}

function limits({ limits: { historyLimitedTo60Days, missingScopes }, notices, throttledUntil }) {
  const others = missingScopes.filter((scope) => scope !== "read_all_orders");
  const notes = [];
  if (historyLimitedTo60Days) notes.push("Shopify shows this app only the last 60 days of orders: grant read_all_orders for all of them.");
  if (others.length) notes.push(`Not granted: ${others.join(", ")}.`);
  if (new Date(throttledUntil ?? 0) > Date.now() + WORTH_TELLING_MS) notes.push(`Shopify asks us to wait until ${clock.format(new Date(throttledUntil))}.`);
  for (const { code, message, action } of notices ?? []) if (!code.startsWith("paused")) notes.push(`${message} ${action}`);
  return notes;
}

// Counts of a live store are those of the comparison: what came since is in the totals.
function showResources({ resources, syncStatus, audit, limits: { missingScopes } }) {
  const halted = syncStatus === "attention";
  const compared = syncStatus === "live" && audit ? ` as of ${dateTime.format(new Date(audit.completedAt))}` : "";
  const box = at("resources");
  for (const part of resources) {
    const card = box.querySelector(`[data-name="${part.name}"]`) ?? box.appendChild(resourceCard(part.name));
    const barred = part.phase === "waiting" && missingScopes.includes(`read_${part.name}`);
    const [label, kind] = barred ? NOT_GRANTED : (PHASES[part.phase] ?? [words(part.phase), ""]);
    pill(card.querySelector(".pill"), [label, halted && kind === "busy" ? "" : kind]);
    card.classList.toggle("done", part.phase === "done");
    const of = part.expected === null ? "" : part.phase === "done" ? compared : ` of ${number.format(part.expected)}`;
    card.querySelector(".figure").replaceChildren(barred ? "–" : number.format(part.promoted), make("small", "", of));
    for (const layer of ["prepared", "staged", "promoted"]) {
      const width = part.phase === "done" ? 1 : part.expected ? part[layer] / part.expected : 0;
      card.querySelector(`.${layer}`).style.width = `${Math.min(width, 1) * 100}%`;
    }
    const bar = card.querySelector(".layers");
    bar.setAttribute("aria-valuenow", String(Math.floor(part.percent)));
    card.querySelector(".facts").replaceChildren(make("span", "", children(part)), make("span", "", speed(part)));
  }
}

function resourceCard(name) {
  const card = make("article", "card resource");
  card.dataset.name = name;
  const head = card.appendChild(make("div", "card-head"));
  head.append(make("h2", "", NAMES[name] ?? name), make("span", "pill"));
  card.append(make("div", "figure"));
  const bar = card.appendChild(make("div", "layers"));
  bar.setAttribute("role", "progressbar");
  bar.setAttribute("aria-label", NAMES[name] ?? name);
  bar.setAttribute("aria-valuemin", "0");
  bar.setAttribute("aria-valuemax", "100");
  bar.append(make("i", "prepared"), make("i", "staged"), make("i", "promoted"));
  card.append(make("div", "facts"));
  return card;
}

// What Shopify has only prepared is not here: the large figure counts what is, and never falls.
function children(part) {
  if (part.phase === "preparing") return part.prepared ? `${number.format(part.prepared)} prepared at Shopify` : "";
  return Object.entries(part.children)
    .filter(([, count]) => count)
    .slice(0, 2)
    .map(([name, count]) => counted(count, ...(CHILDREN[name] ?? [name, name])))
    .join(" · ");
}

function speed(part) {
  const facts = [];
  if (part.ratePerSecond) facts.push(`${number.format(Math.round(part.ratePerSecond))}/s`);
  if (part.etaSeconds !== null) facts.push(`${duration(part.etaSeconds)} left`);
  return facts.join(" · ");
}

function showProof(audit) {
  at("proof").hidden = !audit;
  const orders = audit?.tables.find((line) => line.table === "orders");
  at("proven").hidden = !audit?.equal || !orders;
  if (!audit) return;
  at("proof-when").textContent = dateTime.format(new Date(audit.completedAt));
  at("proof-rows").replaceChildren(
    ...audit.tables.map((line) => {
      const row = make("tr");
      row.append(make("td", "", words(line.table)));
      for (const figure of [line.shopifyCount, line.ourCount]) row.append(make("td", "n", number.format(figure)));
      for (const sum of [line.shopifySum, line.ourSum]) row.append(make("td", "n", sum === null ? "–" : exact(sum)));
      const result = make("td");
      result.append(pill(make("span"), line.equal ? ["Equal", "good"] : [difference(line), "bad"]));
      row.append(result);
      return row;
    }),
  );
  if (orders) showProven(orders, audit.completedAt);
}

// The sentence that all of this is for: every order, every cent.
function showProven({ ourCount, shopifyCount, ourSum, shopifySum }, completedAt) {
  const currency = data?.totals.currency ?? "";
  const sums = ourSum === null ? "" : `${exact(ourSum)} of ${exact(shopifySum)} ${currency}`.trim();
  const facts = [`${number.format(ourCount)} of ${counted(shopifyCount, "order", "orders")}`, sums, `compared ${dateTime.format(new Date(completedAt))}`];
  at("proven").replaceChildren(...facts.filter(Boolean).map((fact) => make("span", "", fact)));
}

function difference({ missing, different, extra }) {
  const parts = [[missing, "missing"], [different, "different"], [extra, "extra"]].filter(([count]) => count);
  return parts.map(([count, what]) => `${number.format(count)} ${what}`).join(", ") || "Not equal";
}

// --- the data

async function loadData() {
  if (document.hidden) return; // it goes on when the tab is looked at again
  let wait = live ? DATA_LIVE_MS : DATA_MS;
  try {
    const answer = await fetch(`api/sync/${encodeURIComponent(brand)}/data`, {
      headers: { Authorization: `Bearer ${widget.getAttribute("token") ?? ""}` },
      signal: AbortSignal.timeout(DATA_LONGEST_MS),
    });
    setLost(false);
    if (answer.ok) showData(await answer.json());
    else wait = DATA_LIVE_MS; // the widget says what is wrong
  } catch {
    setLost(true);
  }
  clearTimeout(loadData.timer);
  loadData.timer = setTimeout(loadData, wait * (0.9 + Math.random() / 5));
}

function showData(landed) {
  if (data && data.asOf === landed.asOf) return;
  data = landed;
  at("as-of").textContent = `as of ${clock.format(new Date(landed.asOf))}`;
  showTiles(landed.totals);
  showNewest(landed.newestOrders);
  showBest(landed.topProducts, landed.totals.currency);
  showChart();
  if (shown) showProof(shown.audit);
}

function showTiles({ orders, orderValue, currency, oldestOrderAt }) {
  const tiles = [["Orders, tests left out", number.format(orders)], ["Order value", money(orderValue, currency)],
    ["Average order", orders ? money(Number(orderValue) / orders, currency) : "–"],
    ["Oldest order", oldestOrderAt ? dayAndYear.format(new Date(oldestOrderAt)) : "–"]];
  at("tiles").replaceChildren(
    ...tiles.map(([label, value]) => {
      const tile = make("div", "card tile");
      tile.append(make("span", "", label), make("strong", "", value));
      return tile;
    }),
  );
}

function showNewest(orders) {
  const rows = orders.map((order) => {
    const row = make("tr", known && !known.has(order.id) ? "fresh" : "");
    const time = make("time", "", dateTime.format(new Date(order.createdAt)));
    time.dateTime = order.createdAt;
    const made = make("td");
    made.append(time);
    row.append(make("td", "", order.name ?? order.id), made, make("td", "", words(order.financialStatus)),
      make("td", "n", number.format(order.items)), make("td", "n", money(order.totalPrice, order.currency)));
    return row;
  });
  known = new Set(orders.map((order) => order.id));
  at("newest").replaceChildren(...(rows.length ? rows : [emptyRow(live ? "No orders so far." : "The first orders arrive in a moment.")]));
}

function emptyRow(text) {
  const row = make("tr");
  const cell = make("td", "empty", text);
  cell.colSpan = 5;
  row.append(cell);
  return row;
}

function showBest(products, currency) {
  const most = Math.max(...products.map((product) => Number(product.value)), 1);
  const items = products.map((product) => {
    const item = make("li");
    const share = make("div", "share");
    const fill = share.appendChild(make("i"));
    fill.style.width = `${(Number(product.value) / most) * 100}%`;
    item.append(make("span", "name", product.title ?? product.productId), make("span", "", money(product.value, currency)),
      share, make("span", "sold", `${number.format(product.quantity)} sold`));
    return item;
  });
  at("best").replaceChildren(...(items.length ? items : [make("li", "empty", "No product sold in these days, so far.")]));
}

function showChart() {
  const span = document.querySelector("#span input:checked").value;
  at("chart-title").textContent = span === "all" ? "Orders per month" : "Orders per day";
  if (data) chart.show(data, span);
}

// --- start

// Without a document there is nothing but the reason: zeros would say that the store is empty.
function showNothing() {
  if (!shown) at("page").classList.add("nothing");
}

// A link ends after an hour. Who has the API key gets a new token; anybody else has to be given a new link.
async function renewToken() {
  const token = savedKey() && (await issueToken(brand));
  if (token) widget.setAttribute("token", token);
  else showNothing();
  return Boolean(token);
}

async function start() {
  if (!savedKey()) at("home").removeAttribute("href");
  if (!brand) {
    at("enter").hidden = false;
    return;
  }
  at("page").hidden = false;
  showTiles({ orders: 0, orderValue: null, currency: null, oldestOrderAt: null });
  widget.texts = {
    expired: `This link has expired. Ask for a new one; “backstock status ${brand}” prints it.`,
  };
  widget.addEventListener("backstock-progress", (event) => {
    const before = live;
    live = event.detail.syncStatus === "live";
    if (live !== before) loadData(); // the proof and the totals are of one moment
    showDocument(event.detail);
  });
  widget.addEventListener("backstock-tokenexpired", renewToken);
  widget.addEventListener("backstock-error", showNothing);
  if (asked.get("token")) widget.setAttribute("token", asked.get("token"));
  else await renewToken();
  widget.setAttribute("brand", brand);
  at("span").addEventListener("change", showChart);
  document.addEventListener("visibilitychange", loadData);
  loadData();
}

start();
