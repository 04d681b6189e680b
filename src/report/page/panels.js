// Everything beside the curves: bars of speed and memory, source weights, gates, halting depth.

// rows: [{ label, depth, value, text, small }]
function barList(title, rows, color) {
  const most = Math.max(...rows.map((row) => row.value));
  const several = new Set(rows.map((row) => row.depth)).size > 1;
  const list = element("div", { class: "bars" });
  let depth;
  for (const row of rows) {
    if (several && row.depth !== depth) {
      depth = row.depth;
      list.append(element("div", { class: "depth" }, `${depth ?? "?"} layers`));
    }
    list.append(element("div", { class: "name", title: row.label }, row.label),
      element("div", { class: "bar", style:
        `width:${(100 * row.value) / most}%;background:${color(row.label)}` }),
      element("div", { class: "value" }, row.text,
        ...(row.small ? [" ", element("small", {}, row.small)] : [])));
  }
  return element("div", {}, element("h3", {}, title), list);
}

function drawBars(section, rows, color) {
  const compared = rows.some((row) => row.ratio !== null && row.ratio !== 1);
  const speed = rows.filter((row) => row.tokens_per_s !== null).map((row) => ({ ...row,
    value: row.tokens_per_s, text: count(row.tokens_per_s),
    small: row.ratio === null || !compared ? null : `${fixed(row.ratio, 2)}\u00d7` }));
  const memory = rows.filter((row) => row.memory !== null).map((row) => ({ ...row,
    value: row.memory, text: bytes(row.memory) }));
  const panels = element("div", { class: "panels" });
  if (speed.length) panels.append(barList("Tokens per second", speed, color));
  if (memory.length) panels.append(barList("Peak memory", memory, color));
  section.append(panels);
  return speed.length + memory.length > 0;
}

// Heat map

const TYPES = ["summary", "phase", "split"];

function rowName(row) {
  if (row.kind === "read_out") return "read-out";
  const kind = row.kind === "mlp" ? "MLP" : row.kind;
  return row.layer === null ? `${row.sublayer} ${kind}` : `layer ${row.layer} ${kind}`;
}

// Columns by type, so that each type's pattern stands by itself: [{ column, index, type }].
function orderedColumns(columns) {
  const kinds = [...TYPES, ...columns.map((column) => column.type)];
  return [...new Set(kinds)].flatMap((type) => columns
    .map((column, index) => ({ column, index, type: column.type }))
    .filter((entry) => entry.type === type));
}

function heatScale() {
  const scale = element("span", { class: "scale", role: "img",
    "aria-label": "Scale of weights from 0 to 1" });
  for (const weight of [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1]) {
    scale.append(element("span", {}, element("em", {},
      element("i", { style: `opacity:${Math.sqrt(weight)}` })), `${weight}`));
  }
  return scale;
}

// Where each column and row lies, in pixels.
function heatLayout(width, columns, rows) {
  const labels = width < 560 ? 108 : 124, gap = 10;
  const gaps = columns.filter((entry, i) => i && entry.type !== columns[i - 1].type).length * gap;
  const cell = Math.max(2, Math.min(40, (width - labels - gaps - 4) / columns.length));
  const high = rows.length > 60 ? 8 : rows.length > 30 ? 13 : 19;
  let left = labels;
  const lefts = columns.map((entry, i) => {
    if (i && entry.type !== columns[i - 1].type) left += gap;
    left += cell;
    return left - cell;
  });
  return { labels, cell, high, lefts, top: 46, every: Math.ceil(14 / high) };
}

function drawHeatMap(figure, sources) {
  const { rows } = sources;
  const columns = orderedColumns(sources.columns);
  const svg = shape("svg", { tabindex: 0, role: "img", "aria-label":
    "Weight of every source (columns) at every sublayer (rows). Arrow keys read the weights." });
  figure.prepend(svg);
  const tooltip = makeTooltip(figure);
  let layout = null, chosen = null;

  function headings() {
    const every = Math.ceil(24 / layout.cell);
    let begin = 0;
    columns.forEach((entry, i) => {
      if ((i - begin) % every === 0) {
        svg.append(shape("text", { x: layout.lefts[i] + layout.cell / 2, y: layout.top - 8,
          "text-anchor": "middle" }, entry.column.label));
      }
      if (i + 1 < columns.length && columns[i + 1].type === entry.type) return;
      const from = layout.lefts[begin], to = layout.lefts[i] + layout.cell;
      svg.append(shape("path", { class: "bracket", d: `M${from + 1} 22H${to - 1}` }),
        shape("text", { class: "strong", x: from + 1, y: 14 }, entry.type));
      begin = i + 1;
    });
  }

  function draw(width) {
    layout = heatLayout(width, columns, rows);
    const { high, cell, top } = layout;
    const height = top + rows.length * high + 4;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.replaceChildren();
    headings();
    const inset = cell > 6 && high > 10 ? 1 : 0.25;
    rows.forEach((row, r) => {
      const y = top + r * high;
      const room = r % layout.every === 0 && rows.length - 1 - r >= layout.every;
      if (room || r === rows.length - 1) {
        svg.append(shape("text", { x: layout.labels - 10, y: y + high / 2 + 4,
          "text-anchor": "end" }, rowName(row)));
      }
      columns.forEach((entry, c) => {
        const weight = row.weights[entry.index] ?? null;
        if (weight === null) return;
        const box = { x: layout.lefts[c] + inset / 2, y: y + inset / 2, width: cell - inset,
          height: high - inset };
        svg.append(shape("rect", { class: "ground", ...box }), shape("rect", { class: "cell", ...box,
          "fill-opacity": Math.sqrt(Math.max(0, Math.min(1, weight))).toFixed(3) }));
      });
    });
    if (chosen) read(...chosen);
  }

  function read(r, c) {
    const row = rows[r], entry = columns[c];
    const weight = row && entry ? row.weights[entry.index] ?? null : null;
    svg.querySelector(".chosen")?.remove();
    if (weight === null) { tooltip.hide(); chosen = row && entry ? [r, c] : null; return; }
    chosen = [r, c];
    const x = layout.lefts[c], y = layout.top + r * layout.high;
    svg.append(shape("rect", { class: "chosen", x, y, width: layout.cell, height: layout.high }));
    tooltip.show(x + layout.cell, y + layout.high / 2, element("b", {}, fixed(weight, 4)),
      element("br"), `${rowName(row)} reads ${entry.column.label} (${entry.type || "source"})`,
      ...(row.entropy === null ? [] : [element("br"), `entropy ${fixed(row.entropy, 3)} nats`]));
  }

  function hide() { chosen = null; svg.querySelector(".chosen")?.remove(); tooltip.hide(); }

  watchCells(svg, { rows: rows.length, columns: columns.length, read, hide, chosen: () => chosen,
    cellAt: (x, y) => [Math.floor((y - layout.top) / layout.high),
      layout.lefts.findIndex((left) => x >= left && x < left + layout.cell)] });
  drawAtWidth(figure, draw);
  return { readSome: () => read(rows.length - 1, Math.min(1, columns.length - 1)) };
}

// Gates and halting depth

function drawGates(figure, gates) {
  const svg = shape("svg", { role: "img", "aria-label": "Gate of every sublayer: mean and range" });
  figure.prepend(svg);
  drawAtWidth(figure, (width) => {
    const height = 240, area = { left: 58, right: width - 12, top: 22, bottom: height - 44 };
    const least = Math.min(...gates.map((gate) => gate.p10 ?? gate.mean));
    const most = Math.max(1, ...gates.map((gate) => gate.p90 ?? gate.mean));
    const margin = Math.max(0.02, (most - least) * 0.08);
    const y = linearScale(Math.max(0, least - margin), most, area.bottom, area.top, 4);
    const numbers = gates.map((gate, i) => gate.sublayer ?? i + 1);
    const x = linearScale(Math.min(...numbers) - 0.5, Math.max(...numbers) + 0.5, area.left,
      area.right, Math.min(width / 60, numbers.length));
    x.ticks = x.ticks.filter(Number.isInteger);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.replaceChildren();
    drawAxes(svg, area, x, y, (tick) => fixed(tick, Math.max(1, y.digits)));
    svg.append(shape("text", { x: 0, y: 10 }, "gate"),
      shape("text", { x: area.right, y: area.bottom + 36, "text-anchor": "end" }, "sublayer"));
    gates.forEach((gate, i) => {
      const at = x.at(numbers[i]);
      const color = gate.kind === "mlp" ? "var(--series-2)" : "var(--series-1)";
      if (gate.p10 !== null && gate.p90 !== null) {
        svg.append(shape("line", { x1: at, x2: at, y1: y.at(gate.p10), y2: y.at(gate.p90),
          style: `stroke:${color};stroke-width:2;stroke-opacity:0.45` }));
      }
      const mark = gate.kind === "mlp"
        ? shape("rect", { x: at - 3.5, y: y.at(gate.mean) - 3.5, width: 7, height: 7 })
        : shape("circle", { cx: at, cy: y.at(gate.mean), r: 4 });
      mark.style.fill = color;
      mark.append(shape("title", {}, `sublayer ${numbers[i]}, ${gate.kind}: ${fixed(gate.mean, 4)}`));
      svg.append(mark);
    });
  });
}

function drawHaltingDepth(figure, depth) {
  const svg = shape("svg", { role: "img", "aria-label": "Share of tokens by halting depth" });
  figure.prepend(svg);
  drawAtWidth(figure, (width) => {
    const height = 240, area = { left: 58, right: width - 12, top: 22, bottom: height - 44 };
    const layers = depth.shares.length;
    const y = linearScale(0, Math.max(...depth.shares) * 1.05, area.bottom, area.top, 4);
    const x = linearScale(0.5, layers + 0.5, area.left, area.right, Math.min(width / 60, layers));
    x.ticks = x.ticks.filter(Number.isInteger);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.replaceChildren();
    drawAxes(svg, area, x, y, (tick) => `${fixed(tick * 100, Math.max(0, y.digits - 2))} %`);
    svg.append(shape("text", { x: 0, y: 10 }, "share of tokens"), shape("text", { x: area.right,
      y: area.bottom + 36, "text-anchor": "end" }, "layers until the token halts"));
    const wide = Math.max(1, (x.at(2) - x.at(1)) * 0.72);
    depth.shares.forEach((share, i) => {
      const bar = shape("rect", { x: x.at(i + 1) - wide / 2, width: wide, y: y.at(share),
        height: area.bottom - y.at(share), style: "fill:var(--series-1)" });
      bar.append(shape("title", {}, `${i + 1} layers: ${fixed(share * 100, 2)} %`));
      svg.append(bar);
    });
    if (depth.mean === null) return;
    const at = x.at(depth.mean);
    svg.append(shape("line", { class: "zero", x1: at, x2: at, y1: area.top, y2: area.bottom }),
      shape("text", { class: "strong", x: at, y: area.top - 4, "text-anchor": "middle" },
        `mean ${fixed(depth.mean, 2)}`));
  });
}
