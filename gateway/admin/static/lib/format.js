// Numbers and times as people read them. Times are shown in the browser's zone; the UTC original is in the title.

import { h } from "./dom.js";

const NONE = "–";

export const count = (number) => (number === null || number === undefined ? NONE : number.toLocaleString("en"));

/** 0.0123 → "12 ms", 75 → "1 min 15 s". */
export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 0.0005) return "0 ms";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 10) return `${Number(value.toFixed(1))} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86400) return two(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return two(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

const two = (big, unit, small, smaller) => (small ? `${big} ${unit} ${small} ${smaller}` : `${big} ${unit}`);

export const milliseconds = (value) => (value === null || value === undefined ? NONE : seconds(value / 1000));

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (value >= 1024 && power < units.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${value >= 100 || power === 0 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}

export const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(part && part < whole / 10 ? 1 : 0)} %` : NONE);

const pad = (number) => String(number).padStart(2, "0");

export function clock(iso, { date = true } = {}) {
  const at = new Date(iso);
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  return date ? `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${time}` : time;
}

/** A moment, exact; "–" for none. */
export const moment = (iso) => (iso ? h("time", { datetime: iso, title: iso }, clock(iso)) : NONE);

/** How long ago, or in how long; the exact moment is in the title. */
export function ago(iso) {
  if (!iso) return NONE;
  const past = (Date.now() - new Date(iso).getTime()) / 1000;
  const text = past >= 0 ? `${seconds(Math.max(1, Math.round(past)))} ago` : `in ${seconds(-past)}`;
  return h("time", { datetime: iso, title: `${clock(iso)} (${iso})` }, text);
}

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
