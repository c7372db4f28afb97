// How figures, times and words look on our own pages.

export const number = new Intl.NumberFormat("en");
export const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
export const dateTime = new Intl.DateTimeFormat("en", { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
export const day = new Intl.DateTimeFormat("en", { month: "short", day: "numeric", timeZone: "UTC" });
export const dayAndYear = new Intl.DateTimeFormat("en", { month: "short", day: "numeric", year: "numeric", timeZone: "UTC" });
export const month = new Intl.DateTimeFormat("en", { month: "short", year: "numeric", timeZone: "UTC" });

// The time of day says enough only on that day.
export const moment = (at) => (at.toDateString() === new Date().toDateString() ? clock : dateTime).format(at);

export const counted = (count, one, many) => `${number.format(count)} ${count === 1 ? one : many}`;

export const STATUSES = {
  connecting: ["Connecting", "busy"],
  recent: ["Recent orders", "busy"],
  backfilling: ["Loading history", "busy"],
  catching_up: ["Catching up", "busy"],
  auditing: ["Auditing", "busy"],
  live: ["Live", "good"],
  attention: ["Needs attention", "bad"],
  removed: ["Disconnected", ""],
};

export const at = (id) => document.getElementById(id);

export function make(name, className = "", text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== "") element.textContent = text;
  return element;
}

export function money(value, currency, digits) {
  if (value === null || value === undefined) return "–";
  const amount = Number(value);
  const whole = Math.abs(amount) >= 100000 && !digits ? { maximumFractionDigits: 0 } : {};
  const style = currency ? { style: "currency", currency } : {};
  return new Intl.NumberFormat("en", { ...style, ...whole }).format(amount);
}

// Sums are compared to the cent, so they are shown to the cent: digits stay as they came.
export function exact(sum) {
  const [whole, cents] = sum.split(".");
  return number.format(BigInt(whole)) + (cents ? `.${cents.padEnd(2, "0")}` : "");
}

export const words = (text) => (text ? text[0].toUpperCase() + text.slice(1).toLowerCase().replaceAll("_", " ") : "–");

export function pill(element, [label, kind]) {
  element.textContent = label;
  element.className = `pill ${kind}`;
  return element;
}
