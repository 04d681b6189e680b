// The page of wavroute inspect. The data is its JSON (docs/inspect.md): { scheme, sublayers,
// depth_mixing, tokens, texts, ... }; each of several texts has the same keys.

const readers = (part) => part.sublayers.map((sublayer) => sublayer.name);

// A figure below a caption; several for several texts, with their names.
function figureIn(section, words) {
  const figure = element("figure", {}, element("figcaption", {}, words));
  section.append(figure);
  return figure;
}

// The whole, and each of several texts: [[name, part]].
function partsOf(data) {
  const texts = data.texts.filter((text) => text.sublayers);
  if (texts.length < 2) return [[data.texts[0].data, data]];
  return [["all texts", data], ...texts.map((text) => [text.data, text])];
}

// Draws with the chosen part; a choice above it where there are several.
function withPart(section, data, draw) {
  const parts = partsOf(data);
  const holder = element("div");
  if (parts.length > 1) {
    section.append(element("div", { class: "controls" }, choice("Text",
      parts.map(([name], i) => [i, name]), 0, (i) => { holder.replaceChildren();
        draw(holder, parts[i][1]); })));
  }
  section.append(holder);
  return draw(holder, parts[0][1]);
}

function drawMixing(section, data) {
  return withPart(section, data, (holder, part) => {
    const weights = part.depth_mixing, names = readers(part);
    // Of e and of the updates.
    const sizes = [part.sublayers[0].norms.stream, ...part.sublayers.slice(0, -1)
      .map((one) => one.norms.update)];
    const shares = weights.map((row) => {
      const parts = row.map((value, c) => (value === null ? null : value * sizes[c]));
      const sum = parts.reduce((total, value) => total + Math.abs(value ?? 0), 0);
      return parts.map((value) => (value === null ? null : sum ? value / sum : 0));
    });
    const size = (row) => Math.max(...row.filter((value) => value !== null).map(Math.abs), 0);
    let byRow = false, matrix = weights, most = Math.max(...weights.map(size));
    const grid = {
      rows: names,
      columns: ["e", ...names.slice(0, -1).map((_, i) => `${i + 1}`)],
      widest: 30,
      value: (r, c) => matrix[r][c],
      full: (r) => (byRow ? size(matrix[r]) : most),
      words: (r, c) => [`weight ${short(weights[r][c])}`,
        `${fixed(100 * Math.abs(shares[r][c]), 2)} % of what it reads, by size`,
        `${names[r]} reads ${c === 0 ? "the embedding" : `${names[c - 1]} (sublayer ${c})`}`],
      label: "Depth-mixing matrix: readers are rows, writes are columns",
    };
    const controls = element("div", { class: "controls" });
    const figure = element("figure", {}, element("figcaption", {},
      "The depth-mixing matrix: the weight with which a reader (row) takes the embedding e and the " +
      "update of each sublayer (column), its mean over tokens and channels; 1 everywhere in a plain " +
      "transformer. Shares are weights times the size of what was written, as parts of their row. " +
      `The shade follows the square root; orange is negative. The largest weight is ${short(most)}.`));
    holder.append(controls, figure);
    const drawn = drawGrid(figure, grid);
    controls.append(choice("Show", [["weights", "weights"], ["shares", "shares of what is read"]],
      "weights", (key) => {
        matrix = key === "weights" ? weights : shares;
        most = Math.max(...matrix.map(size));
        drawn.redraw();
      }), choice("Full shade at the largest of", [["all", "the matrix"], ["row", "its row"]],
      "all", (key) => { byRow = key === "row"; drawn.redraw(); }));
    return drawn;
  });
}

// In the form of drawHeatMap.
function sourcesOf(part) {
  const columns = [], place = new Map();
  const rows = part.sublayers.filter((one) => one.sources.length > 1).map((one) => {
    const weights = [];
    one.sources.forEach((label, j) => {
      if (!place.has(label)) {
        place.set(label, columns.length);
        const type = one.types[j] === "embedding" ? "summary" : one.types[j];
        columns.push({ label, type });
      }
      weights[place.get(label)] = one.weights[j];
    });
    return { sublayer: one.sublayer, layer: one.layer, kind: one.kind, entropy: one.entropy, weights };
  });
  return { columns, rows };
}

function drawRouters(section, data) {
  let drawn = null;
  withPart(section, data, (holder, part) => {
    const sources = sourcesOf(part);
    if (sources.rows.length) {
      holder.append(element("div", { class: "controls" }, heatScale()));
      drawn = drawHeatMap(figureIn(holder, "Weight of every source at every sublayer, its mean over " +
        "tokens; a row sums to one. The shade follows the square root of the weight."), sources);
    }
    const gates = part.sublayers.filter((one) => one.gate).map((one) => ({ sublayer: one.sublayer,
      kind: one.kind, ...one.gate }));
    if (gates.length) {
      drawGates(figureIn(holder, "Gate of every sublayer: the mean, and the range from the 10th to " +
        "the 90th percentile. Circles: attention; squares: MLP."), gates);
    }
    if (part.depth) {
      const total = part.depth.histogram.reduce((sum, value) => sum + value, 0);
      drawHaltingDepth(figureIn(holder, "How many layers a token runs through."), { mean:
        part.depth.mean, shares: part.depth.histogram.map((value) => value / total) });
    }
  });
  return drawn;
}

const LINE = (i) => `var(--series-${1 + (i % 7)})`;

function drawLayers(section, data) {
  const parts = partsOf(data);
  const whole = parts[0][1], names = readers(whole);
  const x = names.map((_, i) => i + 1);
  const base = { x, name: (i) => names[i], places: "sublayer", digits: 4 };
  const panels = element("div", { class: "panels" });
  section.append(panels);
  const panel = (title, words, chart) => {
    const holder = element("div", {}, element("h3", {}, title));
    if (chart.series.length > 1) holder.append(lineLegend(chart.series));
    panels.append(holder);
    return drawLines(figureIn(holder, words), { ...base, ...chart, label: title });
  };
  const of = (name, key, i) => ({ name, color: LINE(i),
    values: whole.sublayers.map((one) => one.norms[key]) });
  panel("Size", "Root mean square over channels of what a sublayer reads (the stream), of what it " +
    "writes, and of the gradient of the loss by what it writes, times the number of tokens.",
  { series: [of("stream", "stream", 0), of("update", "update", 1), of("gradient", "gradient", 2)],
    log: true, unit: "" });
  const perPart = (value) => parts.map(([name, part], i) => ({ name, color: LINE(i),
    values: part.sublayers.map(value) }));
  const losses = perPart((one) => one.loss_if_last);
  const all = losses.flatMap((one) => one.values);
  panel("Loss if the model ended here", "What the next sublayer would read, through the final norm " +
    "and the head.", { series: losses, unit: "nats per token",
    log: Math.min(...all) > 0 && Math.max(...all) > 4 * Math.min(...all) });
  panel("Neighbours", "Cosine of what a sublayer reads with what the next one reads.",
    { series: perPart((one) => one.cosine), unit: "cosine" });
  return panel("Age of what is read", "Sublayers since it was written: a mean weighted by the size " +
    "of the entries of the matrix above.", { series: perPart((one) => one.age), unit: "sublayers" });
}

const MEASURES = [["details", "share of details"], ["entropy", "entropy"], ["gate", "gate"],
  ["age", "age of what is read"], ["loss_if_last", "loss if the model ended here"]];

function drawTokens(section, data) {
  return withPart(section, data, (holder, part) => {
    const groups = Object.entries(part.tokens).filter(([, group]) => group.tokens > 0);
    // Not what is the same for all tokens: the age in a plain transformer.
    const has = (key) => names.some((_, r) => groups.some(([, group]) => {
      const one = group.sublayers[r][key], first = groups[0][1].sublayers[r][key];
      return one !== null && Math.abs(one - first) > 1e-9;
    }));
    const names = readers(part);
    const measures = MEASURES.filter(([key]) => has(key));
    if (!measures.length) return null;
    let key = measures[0][0];
    const value = (r, c) => {
      const one = groups[c][1].sublayers[r];
      if ((key === "details" || key === "entropy") && one.weights.length < 2) return null;
      return one[key];
    };
    const grid = {
      rows: names,
      columns: groups.map(([name]) => name),
      widest: 96,
      value,
      full: () => Math.max(...names.map((_, r) => Math.max(...groups.map((_, c) => value(r, c) ?? 0)))),
      words: (r, c) => [key === "details" ? `${fixed(100 * value(r, c), 2)} %` : fixed(value(r, c), 4),
        `${measures.find(([name]) => name === key)[1]}, ${names[r]}`,
        `${groups[c][0]}: ${count(groups[c][1].tokens)} tokens, loss ${fixed(groups[c][1].loss, 3)}`],
      label: "What routers do by the kind of token",
    };
    const controls = element("div", { class: "controls" });
    const figure = element("figure", {}, element("figcaption", {}, "Means over the tokens of a " +
      "group: by what the token that is read stands for, by how often it comes (the frequent ones " +
      "make up half of the text, the rare ones a tenth), and by its place in the window."));
    holder.append(controls, figure);
    const drawn = drawGrid(figure, grid);
    controls.append(choice("Show", measures, key, (chosen) => { key = chosen; drawn.redraw(); }));
    return drawn;
  });
}

function buildPage() {
  const data = JSON.parse(document.getElementById("data").textContent);
  setUpTheme();
  const some = (test) => data.sublayers.some(test);
  const sections = [["mixing", drawMixing, true],
    ["routing", drawRouters, some((one) => one.sources.length > 1 || one.gate) || data.depth],
    ["layers", drawLayers, true], ["tokens", drawTokens, true]];
  for (const [id, draw, shown] of sections) {
    if (!shown) continue;
    const section = document.getElementById(id);
    section.hidden = false;
    const drawn = draw(section, data);
    if (location.hash === "#test-hover") drawn?.readSome();
  }
}

buildPage();
document.documentElement.dataset.ready = "1";
