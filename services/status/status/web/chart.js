// Orders per day or month, drawn by uPlot: bars for a few periods, an area for many. The days fill up from
// today backwards while the history loads, so the axis has its whole length from the first moment. Before
// the oldest order that is here nothing is drawn: nobody knows yet whether something was sold.

import { day, dayAndYear, make, money, month, number } from "./format.js";

const SECONDS_A_DAY = 86400;
const BARS_UP_TO = 120; // periods; more are narrower than the gaps between
const STEPS = [1, 10, 100, 1e3, 1e4, 1e5, 1e6].flatMap((step) => [step, 2 * step, 5 * step]); // orders come whole

export class OrdersChart {
  #box;
  #readout;
  #plot;
  #slots = [];
  #span = "";
  #currency = null;

  constructor(box, readout) {
    this.#box = box;
    this.#readout = readout;
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  show(data, span) {
    const kind = span === "all" ? "months" : "days";
    this.#currency = data.totals.currency;
    this.#slots = kind === "days" ? days(data, Number(span)) : months(data);
    const same = this.#plot && this.#span === span;
    this.#span = span;
    if (same) this.#plot.setData(this.#columns());
    else this.#draw();
    this.#say();
  }

  #columns() {
    return [this.#slots.map((slot) => slot.second), this.#slots.map((slot) => slot.orders)];
  }

  // An area needs two days: the only one that is known so far is a dot.
  #alone() {
    const known = this.#slots.flatMap(({ orders }, index) => (orders === null ? [] : [index]));
    return known.length === 1 ? known : [];
  }

  #size() {
    return { width: Math.max(this.#box.clientWidth, 260), height: Math.max(this.#box.clientHeight, 200) };
  }

  #draw() {
    if (!this.#slots.length) return;
    this.#plot?.destroy();
    this.#box.replaceChildren();
    this.#plot = new uPlot(this.#options(), this.#columns(), this.#box);
  }

  #options() {
    const colour = (name) => getComputedStyle(document.body).getPropertyValue(name);
    const style = getComputedStyle(this.#box);
    const resolve = (name) => resolved(colour(name), this.#box);
    const font = `12px ${style.fontFamily}`;
    const bars = this.#slots.length <= BARS_UP_TO;
    const axis = { stroke: resolve("--muted"), font, ticks: { show: false } };
    const unit = this.#span === "all" ? month : day;
    return {
      ...this.#size(),
      padding: [8, 4, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: !bars, size: 8 } },
      scales: { x: { time: true, range: this.#range }, y: { range: (_plot, _low, high) => [0, Math.max(4, high * 1.12)] } },
      axes: [
        { ...axis, grid: { show: false }, space: 84, size: 30, values: (_plot, ticks) => ticks.map((tick) => unit.format(new Date(tick * 1000))) },
        { ...axis, grid: { stroke: resolve("--line"), width: 1 }, size: 46, space: 56, incrs: STEPS,
          values: (_plot, ticks) => ticks.map((tick) => number.format(tick)) },
      ],
      series: [
        {},
        { stroke: resolve("--accent"), width: bars ? 0 : 1.5, fill: resolve(bars ? "--accent" : "--accent-fill"),
          paths: bars ? uPlot.paths.bars({ size: [0.68, 26], radius: 0.14 }) : uPlot.paths.linear(), points: { show: !bars, size: 6, fill: resolve("--accent"), filter: () => this.#alone() } },
      ],
      hooks: { setCursor: [(plot) => this.#say(plot.cursor.idx)] },
      tzDate: (second) => uPlot.tzDate(new Date(second * 1000), "Etc/UTC"),
    };
  }

  #range = (plot, low, high) => {
    const half = this.#slots.length <= BARS_UP_TO ? (high - low) / (2 * Math.max(this.#slots.length - 1, 1)) : 0;
    return [low - half, high + half];
  };

  #say(index = null) {
    const slot = index === null ? null : this.#slots[index];
    const sum = (name) => this.#slots.reduce((total, each) => total + Number(each[name]), 0);
    const [orders, value] = slot ? [slot.orders, slot.value] : [sum("orders"), sum("value")];
    const first = this.#slots.find((each) => each.orders) ?? this.#slots[0];
    const unit = this.#span === "all" ? month : dayAndYear;
    const when = slot ? unit.format(slot.date) : `since ${unit.format(first.date)}`;
    const text = orders === null
      ? "No order so far"
      : `${number.format(orders)} ${orders === 1 ? "order" : "orders"}, ${money(value, this.#currency)}`;
    this.#readout.replaceChildren(make("strong", "", text), ` ${when}`);
    if (!slot) this.#box.setAttribute("aria-label", `Orders over time: ${text} ${when}`);
  }
}

// Canvas knows no light-dark(): the browser computes what it is at the moment.
function resolved(colour, parent) {
  const probe = parent.appendChild(make("i"));
  probe.style.color = colour;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function slotter(rows, { oldestOrderAt }) {
  const found = new Map(rows.map((row) => [row.start, row]));
  const oldest = oldestOrderAt?.slice(0, 10) ?? "9999";
  return (date) => {
    const start = date.toISOString().slice(0, 10);
    const { orders, value } = found.get(start) ?? { orders: start < oldest ? null : 0, value: "0" };
    return { date, second: date.getTime() / 1000, orders, value };
  };
}

function days({ ordersPerDay, totals }, count) {
  const slot = slotter(ordersPerDay, totals);
  const today = Math.floor(Date.now() / 1000 / SECONDS_A_DAY);
  return Array.from({ length: count }, (_, index) => slot(new Date((today - count + 1 + index) * SECONDS_A_DAY * 1000)));
}

function months({ ordersPerMonth: rows, totals }) {
  const slot = slotter(rows, totals);
  const now = new Date();
  const first = rows.length ? new Date(rows[0].start) : now;
  const count = Math.max((now.getUTCFullYear() - first.getUTCFullYear()) * 12 + now.getUTCMonth() - first.getUTCMonth() + 1, 12);
  return Array.from({ length: count }, (_, index) =>
    slot(new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - count + 1 + index, 1))));
}
