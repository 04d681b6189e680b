// Small helpers that all charts share: elements, scales, ticks, numbers, tooltips.
// Text from the data only ever enters the page through textContent or setAttribute.

const MINUS = "\u2212";
const NONE = "\u2013";
const SVG = "http://www.w3.org/2000/svg";

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function shape(tag, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  return node;
}

// Numbers

function count(value) {
  return Math.round(value).toLocaleString("en-US").replace("-", MINUS);
}

function fixed(value, digits) {
  return value == null ? NONE : value.toFixed(digits).replace("-", MINUS);
}

function signed(value, digits) {
  return value == null ? NONE : (value > 0 ? "+" : "") + fixed(value, digits);
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < 4) { value /= 1024; unit += 1; }
  const digits = unit < 2 || value >= 100 ? 0 : unit === 2 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// Scales: { at(value) -> pixel, back(pixel) -> value, ticks: [value] }

function roundTicks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) {
    ticks.push(k * step + 0);  // + 0: no negative zero
  }
  return { ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function linearScale(low, high, from, to, wanted) {
  const { ticks, digits } = roundTicks(low, high, wanted);
  return {
    at: (value) => from + ((value - low) / (high - low)) * (to - from),
    back: (pixel) => low + ((pixel - from) / (to - from)) * (high - low),
    ticks,
    digits,
  };
}

function logScale(low, high, from, to, wanted) {
  const a = Math.log10(low), b = Math.log10(high);
  const every = b - a > wanted ? [1] : b - a > wanted / 2 ? [1, 3] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(a); power <= Math.ceil(b); power += 1) {
    for (const m of every) ticks.push(m * 10 ** power);
  }
  return {
    at: (value) => from + ((Math.log10(Math.max(value, low)) - a) / (b - a)) * (to - from),
    back: (pixel) => 10 ** (a + ((pixel - from) / (to - from)) * (b - a)),
    ticks: ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001),
    digits: 0,
  };
}

// The index of the last item of a sorted list that is <= value, or -1.
function lastAtOrBefore(sorted, value) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle + 1; else high = middle;
  }
  return low - 1;
}

// Interaction

// A labelled row of buttons of which one is pressed; `chosen` is called with its value.
function choice(label, options, value, chosen) {
  const buttons = options.map(([key, text]) => {
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", () => { press(key); chosen(key); });
    return [key, button];
  });
  function press(key) {
    for (const [name, button] of buttons) button.setAttribute("aria-pressed", name === key);
  }
  press(value);
  return element("span", { class: "choice", role: "group", "aria-label": label },
    element("span", {}, label), element("span", {}, ...buttons.map(([, button]) => button)));
}

// A box in `figure` beside the point (x, y), in pixels of the figure; it stays inside.
function makeTooltip(figure) {
  const box = element("div", { class: "tooltip", role: "status", hidden: "" });
  figure.append(box);
  return {
    show(x, y, ...content) {
      box.replaceChildren(...content);
      box.hidden = false;
      const right = x + 16 + box.offsetWidth <= figure.clientWidth;
      const left = right ? x + 16 : Math.max(0, x - 16 - box.offsetWidth);
      const lowest = Math.max(0, figure.clientHeight - box.offsetHeight);
      const top = Math.max(0, Math.min(y - box.offsetHeight / 2, lowest));
      box.style.transform = `translate(${left}px, ${top}px)`;
    },
    hide() { box.hidden = true; },
  };
}

// Calls draw(width) now and whenever the figure's width changes.
function drawAtWidth(figure, draw) {
  let width = 0;
  const update = () => {
    const now = Math.round(figure.clientWidth);
    if (now === 0 || now === width) return;
    width = now;
    draw(width);
  };
  update();
  if (window.ResizeObserver) new ResizeObserver(update).observe(figure);
}

// Horizontal grid lines with their numbers, and the x axis with its own.
function drawAxes(svg, area, x, y, format) {
  for (const tick of y.ticks) {
    const at = y.at(tick);
    svg.append(shape("line", { class: "grid", x1: area.left, x2: area.right, y1: at, y2: at }),
      shape("text", { x: area.left - 8, y: at + 4, "text-anchor": "end" }, format(tick)));
  }
  svg.append(shape("line", {
    class: "axis", x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom }));
  for (const tick of x.ticks) {
    const at = x.at(tick);
    svg.append(
      shape("line", { class: "axis", x1: at, x2: at, y1: area.bottom, y2: area.bottom + 4 }),
      shape("text", { x: at, y: area.bottom + 18, "text-anchor": "middle" }, count(tick)));
  }
}

// Heat maps: read(row, column) shows the cell under the pointer or the one that arrow keys go to from
// chosen(), [row, column] or null; hide() shows none. cellAt(x, y) -> [row, column], of pixels.

function watchCells(svg, { rows, columns, cellAt, chosen, read, hide }) {
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    read(...cellAt(event.clientX - box.left, event.clientY - box.top));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.key === "Escape") hide();
    if (!move[event.key]) return;
    event.preventDefault();
    const [r, c] = chosen() ?? [rows - 1, 0];
    const [dr, dc] = chosen() ? move[event.key] : [0, 0];
    read(Math.max(0, Math.min(rows - 1, r + dr)),
      Math.max(0, Math.min(columns - 1, c + dc)));
  });
}
