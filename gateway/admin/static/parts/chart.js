// Charts of a few series over time: bars that stand on one another, or lines. With the mouse or the arrow keys each step
// can be read exactly.

import { h, put, svg } from "../lib/dom.js";
import { clock } from "../lib/format.js";

const WIDTH = 600;
const HEIGHT = 100;
const STEPS = [1, 2, 3, 4, 6, 8, 10]; // what the scale may end with, times a power of ten

/**
 * `series`: `{label, look, values}`, values as many as `times` (RFC 3339), null where there is none. `show` words a value.
 * `bars`: stacked bars, else lines. `whole`: the values are counts.
 */
export function chart(title, times, series, { show = String, bars = false, whole = bars } = {}) {
  const top = scale(highest(series, times.length, bars), whole);
  const step = WIDTH / Math.max(1, times.length);
  const x = (index) => index * step;
  const y = (value) => HEIGHT * (1 - value / top);
  const cursor = svg("rect", { class: "cursor", y: 0, height: HEIGHT, width: Math.max(1, step), visibility: "hidden" });
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true", preserveAspectRatio: "none" },
    [0, HEIGHT / 2].map((height) => svg("line", { class: "rule", x1: 0, x2: WIDTH, y1: height, y2: height })),
    cursor,
    bars ? stacked(series, times.length, x, y, step) : series.map((one) => line(one, x, y, step)),
  );
  const legend = h("ul", { class: "legend" }, series.map((one) => h("li", { class: one.look }, one.label, " ", h("b", {}))));
  const at = h("span", { class: "at" });
  const figure = h(
    "figure",
    { class: "chart", "data-whole": true, tabindex: "0", role: "group", "aria-label": `${title}. Read each step with the arrow keys.` },
    h("figcaption", {}, h("span", { class: "name" }, title), at, legend),
    h(
      "div",
      { class: "plot" },
      h("div", { class: "y", "aria-hidden": "true" }, [top, top / 2, 0].map((value) => h("span", {}, value ? show(value) : "0"))),
      picture,
      h("div", { class: "x", "aria-hidden": "true" }, [0, Math.floor(times.length / 2), times.length - 1].map((index) => h("span", {}, times.length ? short(times[index], times) : ""))),
    ),
    h("span", { class: "unseen", "aria-live": "polite" }),
  );
  read(figure, cursor, at, legend, { times, series, x, step, show });
  return figure;
}

function highest(series, length, bars) {
  const sums = Array.from({ length }, (_, index) => {
    const values = series.map((one) => one.values[index] ?? 0);
    return bars ? values.reduce((sum, value) => sum + value, 0) : Math.max(...values);
  });
  return Math.max(0, ...sums);
}

/** The next round number; of whole ones an even one, for its half is shown too. */
function scale(value, whole) {
  if (value <= 0 || (whole && value < 2)) return 2;
  const power = 10 ** Math.floor(Math.log10(value));
  return STEPS.map((factor) => factor * power).find((round) => round >= value && !(whole && round % 2));
}

function stacked(series, length, x, y, step) {
  const below = new Array(length).fill(0);
  return series.map((one) => {
    const path = one.values
      .map((value, index) => {
        if (!value) return "";
        const from = y(below[index]);
        below[index] += value;
        return `M${fixed(x(index) + step * 0.1)} ${fixed(from)}V${fixed(y(below[index]))}h${fixed(step * 0.8)}V${fixed(from)}Z`;
      })
      .join("");
    return svg("path", { class: `bar ${one.look}`, d: path });
  });
}

function line(one, x, y, step) {
  let pen = "M";
  const path = one.values
    .map((value, index) => {
      if (value === null || value === undefined) {
        pen = "M";
        return "";
      }
      const point = `${pen}${fixed(x(index) + step / 2)} ${fixed(y(value))}`;
      pen = "L";
      // A value with none on either side would be no line at all.
      return one.values[index - 1] ?? one.values[index + 1] ?? false ? point : `${point}h0.01`;
    })
    .join("");
  return svg("path", { class: `line ${one.look}`, d: path, "vector-effect": "non-scaling-stroke" });
}

const fixed = (number) => number.toFixed(1);

function short(iso, times) {
  const long = new Date(times.at(-1)) - new Date(times[0]) > 3 * 3600 * 1000;
  return long ? clock(iso).slice(5, 16) : clock(iso, { date: false }).slice(0, 5);
}

/** The cursor that reads a step; without one the legend shows the last. */
function read(figure, cursor, at, legend, { times, series, x, step, show }) {
  let chosen = null;
  const told = figure.lastElementChild;
  const values = (index) => series.map((one) => (one.values[index] === null || one.values[index] === undefined ? "–" : show(one.values[index])));

  function choose(index, aloud) {
    chosen = index;
    const shown = index ?? times.length - 1;
    const texts = times.length ? values(shown) : series.map(() => "–");
    texts.forEach((text, place) => put(legend.children[place].lastElementChild, text));
    put(at, times.length ? short(times[shown], times) : "");
    cursor.setAttribute("visibility", index === null ? "hidden" : "visible");
    if (index !== null) cursor.setAttribute("x", fixed(x(index)));
    if (aloud) put(told, `${clock(times[index])}: ${series.map((one, place) => `${one.label} ${texts[place]}`).join(", ")}`);
  }

  figure.addEventListener("pointermove", (event) => {
    const box = figure.querySelector("svg").getBoundingClientRect();
    const index = Math.floor((((event.clientX - box.left) / box.width) * WIDTH) / step);
    choose(index >= 0 && index < times.length ? index : null, false);
  });
  figure.addEventListener("pointerleave", () => choose(null, false));
  figure.addEventListener("blur", () => choose(null, false));
  figure.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !times.length) return;
    event.preventDefault();
    choose(Math.min(times.length - 1, Math.max(0, (chosen ?? times.length - 1 + (move > 0 ? -1 : 1)) + move)), true);
  });
  choose(null, false);
}
