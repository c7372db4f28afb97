// The dashboard page. The widget holds the one connection; its events carry the document to the rest.
// Everything shown goes in as text, never as markup.

import { duration } from "./widget.js";

const DATA_MS = 2000; // the server answers from memory when that is too often
const DATA_LIVE_MS = 10000;
const SVG = "http://www.w3.org/2000/svg";
const NAMES = { orders: "Orders", customers: "Customers", products: "Products" };
const PHASES = {
  waiting: ["Waiting", ""],
  preparing: ["Shopify prepares", "busy"],
  downloading: ["Downloading", "busy"],
  promoting: ["Finishing", "busy"],
  done: ["Complete", "good"],
};
const STATUSES = {
  connecting: ["Connecting", "busy"],
  recent: ["Recent orders", "busy"],
  backfilling: ["Loading history", "busy"],
  catching_up: ["Catching up", "busy"],
  auditing: ["Auditing", "busy"],
  live: ["Live", "good"],
  attention: ["Needs attention", "bad"],
};
const CHILDREN = { lineItems: "line items", refunds: "refunds", variants: "variants" };

const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const dateTime = new Intl.DateTimeFormat("en", { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat("en", { month: "short", day: "numeric", timeZone: "UTC" });
const dayAndYear = new Intl.DateTimeFormat("en", { month: "short", day: "numeric", year: "numeric", timeZone: "UTC" });
const month = new Intl.DateTimeFormat("en", { month: "short", year: "numeric", timeZone: "UTC" });

const at = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);
const brand = asked.get("brand");
const token = asked.get("token");
let live = false;
let data = null;
let known = null; // ids of the newest orders as shown last

function make(name, className = "", text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== "") element.textContent = text;
  return element;
}

function draw(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return parent.appendChild(element);
}

function money(value, currency) {
  if (value === null || value === undefined) return "–";
  const amount = Number(value);
  if (!currency) return number.format(amount);
  const digits = Math.abs(amount) >= 100000 ? { maximumFractionDigits: 0 } : {};
  return new Intl.NumberFormat("en", { style: "currency", currency, ...digits }).format(amount);
}

const words = (text) => (text ? text[0].toUpperCase() + text.slice(1).toLowerCase().replaceAll("_", " ") : "–");

// --- the document

function showDocument(doc) {
  at("store").hidden = false;
  at("shop").textContent = doc.shop || doc.brandId;
  const [label, kind] = STATUSES[doc.syncStatus] ?? [doc.syncStatus, ""];
  at("status").textContent = label;
  at("status").className = `pill ${kind}`;
  document.title = `${doc.syncStatus === "live" ? "Live" : `${Math.floor(doc.percent)}%`} · ${doc.shop || doc.brandId}`;
  showMilestones(doc.milestones);
  showError(doc.lastError);
  showLimits(doc.limits);
  showResources(doc.resources);
  showProof(doc.audit);
}

function showMilestones(milestones) {
  at("milestones").replaceChildren(
    ...milestones.map(({ label, state, at: reached }) => {
      const item = make("li", state, label);
      if (state === "active") item.setAttribute("aria-current", "step");
      const time = make("time", "", state === "done" && reached ? clock.format(new Date(reached)) : "");
      if (reached) time.dateTime = reached;
      item.append(time);
      return item;
    }),
  );
}

function showError(error) {
  at("error").hidden = !error;
  at("progress").classList.toggle("told", Boolean(error));
  at("error-message").textContent = error?.message ?? "";
  at("error-action").textContent = error?.action ?? "";
}

function showLimits({ historyLimitedTo60Days, missingScopes }) {
  const others = missingScopes.filter((scope) => scope !== "read_all_orders");
  const notes = [];
  if (historyLimitedTo60Days) notes.push("Shopify shows this app only the last 60 days of orders: grant read_all_orders for all of them.");
  if (others.length) notes.push(`Not granted: ${others.join(", ")}.`);
  at("limits").hidden = !notes.length;
  at("limits").textContent = notes.join(" ");
}

function showResources(resources) {
  const box = at("resources");
  for (const part of resources) {
    const card = box.querySelector(`[data-name="${part.name}"]`) ?? box.appendChild(resourceCard(part.name));
    const [label, kind] = PHASES[part.phase];
    const pill = card.querySelector(".pill");
    pill.textContent = label;
    pill.className = `pill ${kind}`;
    const preparing = part.phase === "preparing";
    const figure = card.querySelector(".figure");
    const of = part.expected === null ? "" : part.phase === "done" ? "" : ` of ${number.format(part.expected)}`;
    figure.replaceChildren(number.format(preparing ? part.prepared : part.promoted), make("small", "", preparing ? `${of} prepared` : of));
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

function children(part) {
  const counted = Object.entries(part.children).filter(([, count]) => count);
  return counted
    .slice(0, 2)
    .map(([name, count]) => `${number.format(count)} ${CHILDREN[name] ?? name}`)
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
  if (!audit) return;
  at("proof-when").textContent = dateTime.format(new Date(audit.completedAt));
  at("proof-rows").replaceChildren(
    ...audit.tables.map((line) => {
      const row = make("tr");
      row.append(make("td", "", words(line.table)));
      for (const figure of [line.shopifyCount, line.ourCount]) row.append(make("td", "n", number.format(figure)));
      for (const sum of [line.shopifySum, line.ourSum]) row.append(make("td", "n", sum === null ? "–" : exact(sum)));
      const result = make("td");
      result.append(make("span", `pill ${line.equal ? "good" : "bad"}`, line.equal ? "Equal" : difference(line)));
      row.append(result);
      return row;
    }),
  );
}

// Sums are compared to the cent, so they are shown to the cent: digits stay as they came.
function exact(sum) {
  const [whole, cents] = sum.split(".");
  return number.format(BigInt(whole)) + (cents ? `.${cents.padEnd(2, "0")}` : "");
}

function difference({ missing, different, extra }) {
  const parts = [[missing, "missing"], [different, "different"], [extra, "extra"]].filter(([count]) => count);
  return parts.map(([count, what]) => `${number.format(count)} ${what}`).join(", ") || "Not equal";
}

// --- the data

async function loadData() {
  let wait = live ? DATA_LIVE_MS : DATA_MS;
  try {
    if (!document.hidden) {
      const answer = await fetch(`api/sync/${encodeURIComponent(brand)}/data`, {
        headers: token ? { Authorization: `Bearer ${token}` } : {},
      });
      if (answer.ok) showData(await answer.json());
      else if (answer.status < 500) return; // the widget says what is wrong
    }
  } catch {
    wait = DATA_LIVE_MS; // offline
  }
  setTimeout(loadData, wait);
}

function showData(landed) {
  if (data && data.asOf === landed.asOf) return;
  data = landed;
  at("as-of").textContent = `as of ${clock.format(new Date(landed.asOf))}`;
  showTiles(landed.totals);
  showNewest(landed.newestOrders);
  showBest(landed.topProducts, landed.totals.currency);
  showChart();
}

function showTiles({ orders, orderValue, currency, oldestOrderAt }) {
  const tiles = [["Orders to read", number.format(orders)], ["Order value", money(orderValue, currency)],
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
  at("newest").replaceChildren(...(rows.length ? rows : [emptyRow("The first orders arrive in a moment.")]));
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
  at("best").replaceChildren(...(items.length ? items : [make("li", "empty", "Nothing sold in these days, so far.")]));
}

// --- the chart: every period has its slot, also those without orders

function periods(span) {
  const now = new Date();
  const starts = [];
  for (let back = span === "days" ? 29 : 23; back >= 0; back -= 1) {
    starts.push(span === "days"
      ? new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate() - back))
      : new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - back, 1)));
  }
  const rows = new Map((span === "days" ? data.ordersPerDay : data.ordersPerMonth).map((row) => [row.start, row]));
  return starts.map((start) => ({ start, ...(rows.get(start.toISOString().slice(0, 10)) ?? { orders: 0, value: "0" }), date: start }));
}

function niceCeiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= value && step >= 4) ?? Math.max(10 * power, 4);
}

function showChart() {
  if (!data) return;
  const span = document.querySelector("#span input:checked").value;
  const slots = periods(span);
  const box = at("chart");
  const width = Math.max(box.clientWidth, 280);
  const height = Math.max(box.clientHeight, 200);
  const [left, bottom, top] = [40, 24, 8];
  const most = niceCeiling(Math.max(...slots.map((slot) => slot.orders)));
  const scale = (height - bottom - top) / most;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  const sum = slots.reduce((total, slot) => total + slot.orders, 0);
  svg.setAttribute("aria-label", `${number.format(sum)} orders in the last ${slots.length} ${span}`);
  for (const part of [0, 0.5, 1]) {
    const y = height - bottom - most * part * scale;
    draw("line", { class: "grid", x1: left, x2: width, y1: y, y2: y }, svg);
    draw("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, svg).textContent = number.format(most * part);
  }
  const step = (width - left) / slots.length;
  const format = span === "days" ? day : month;
  slots.forEach((slot, index) => {
    const x = left + index * step;
    const group = draw("g", {}, svg);
    draw("title", {}, group).textContent = `${format.format(slot.date)}: ${number.format(slot.orders)} orders, ${money(slot.value, data.totals.currency)}`;
    draw("rect", { class: "slot", x, y: top, width: step, height: height - bottom - top }, group);
    const tall = slot.orders ? Math.max(slot.orders * scale, 2) : 0;
    const bar = Math.min(step * 0.68, 26);
    draw("rect", { class: "bar", x: x + (step - bar) / 2, y: height - bottom - tall, width: bar, height: tall, rx: Math.min(3, bar / 3) }, group);
  });
  const labels = width < 480 ? 3 : 5;
  for (let label = 0; label < labels; label += 1) {
    const index = Math.round((label * (slots.length - 1)) / (labels - 1));
    const anchor = label === 0 ? "start" : label === labels - 1 ? "end" : "middle";
    const x = label === 0 ? left : label === labels - 1 ? width : left + (index + 0.5) * step;
    draw("text", { x, y: height - 4, "text-anchor": anchor }, svg).textContent = format.format(slots[index].date);
  }
  box.replaceChildren(svg);
}

// --- start

function start() {
  if (!brand) {
    at("enter").hidden = false;
    return;
  }
  at("page").hidden = false;
  const widget = at("progress");
  widget.addEventListener("backstock-progress", (event) => {
    live = event.detail.syncStatus === "live";
    showDocument(event.detail);
  });
  widget.setAttribute("brand", brand);
  if (token) widget.setAttribute("token", token);
  at("span").addEventListener("change", showChart);
  new ResizeObserver(showChart).observe(at("chart"));
  loadData();
}

start();
