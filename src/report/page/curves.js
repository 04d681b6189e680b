// The loss chart: training loss smoothed and thin, validation loss with its points; or, seed by
// seed, the difference of validation losses to the reference's.

// An exponential average over about 2 % of the points, without the bias of its start.
function smoothed(values) {
  const keep = 1 - 1 / Math.max(1, values.length * 0.02);
  let sum = 0, weight = 0;
  return values.map((value) => {
    sum = keep * sum + value;
    weight = keep * weight + 1;
    return sum / weight;
  });
}

// runs -> series with what the chart draws: points of [step, value].
function makeSeries(runs) {
  const same = (a, b) => a.depth === b.depth && a.seed === b.seed;
  return runs.map((run, index) => {
    const { steps, loss, bits_per_byte: bits } = run.validation;
    const reference = runs.find((other) => other.label === run.reference && same(other, run));
    const difference = { steps: [], values: [] };
    if (reference && reference !== run) {
      const at = new Map(reference.validation.steps.map((s, i) => [s, reference.validation.loss[i]]));
      steps.forEach((step, i) => {
        if (!at.has(step)) return;
        difference.steps.push(step);
        difference.values.push(loss[i] - at.get(step));
      });
    }
    return {
      run, index, bits,
      train: { steps: run.train.steps, values: smoothed(run.train.loss) },
      validation: { steps, values: loss },
      difference,
    };
  });
}

// The marker of a series: its shape distinguishes labels that share a colour.
function dot(cx, cy, color, marker) {
  const style = `fill:${color}`;
  if (marker === 0) return shape("circle", { class: "point", cx, cy, r: 3.5, style });
  return shape("rect", { class: "point", x: cx - 3.2, y: cy - 3.2, width: 6.4, height: 6.4, style,
    transform: marker === 2 ? `rotate(45 ${cx} ${cy})` : "" });
}

function swatch({ color, marker }) {
  const svg = shape("svg", { class: "swatch", viewBox: "0 0 20 10", "aria-hidden": "true" });
  svg.append(shape("line", { x1: 0, x2: 20, y1: 5, y2: 5, style: `stroke:${color};stroke-width:2` }),
    dot(10, 5, color, marker));
  return svg;
}

function drawCurves(section, runs, style) {
  const series = makeSeries(runs);
  const depths = [...new Set(runs.map((run) => run.depth))].sort((a, b) => a - b);
  const tried = () => new Set(runs.filter((run) => run.tried).map((run) => run.label));
  const state = {
    depth: depths.length > 1 ? depths[depths.length - 1] : "all", group: "label", seeds: "each",
    view: "loss", range: "all", scale: "linear", off: tried(), step: null,
  };
  // Colour, marker and legend follow the group: the label, or the value of any key that differs.
  const groupOf = (run) => state.group === "label" ? run.label : run.keys[state.group] ?? NONE;
  const groups = () => [...new Set(runs.map(groupOf))];
  const styleOf = (run, byDepth) => {
    if (state.group === "label") return style(run, byDepth);
    const index = groups().indexOf(groupOf(run));
    return { ...style(run, byDepth), color: `var(--series-${index % 8})`,
      marker: Math.floor(index / 8) % 3 };
  };
  const figure = element("figure");
  const svg = shape("svg", { tabindex: 0, role: "img",
    "aria-label": "Loss by training step. The left and right arrow keys read values." });
  const legend = element("div", { class: "legend" });
  const caption = element("figcaption");
  figure.append(svg);
  const tooltip = makeTooltip(figure);
  let drawn = null;  // the last drawing's scales and area

  const atDepth = (s) => state.depth === "all" || s.run.depth === state.depth;
  const isOn = (s) => atDepth(s) && !state.off.has(groupOf(s.run));
  const dotted = (s) => state.view === "loss" ? s.validation : s.difference;
  const linesOf = (s) => state.view === "loss" && state.seeds === "each"
    ? [s.train, s.validation] : [dotted(s)];
  const bands = (on) => bandGroups(on, (s) => `${s.run.depth} ${groupOf(s.run)}`);
  const name = (run, withSeed) => [groupOf(run),
    state.depth === "all" && depths.length > 1 ? `${run.depth} layers` : null,
    withSeed && run.seed !== null && sharesSeed(run) ? `seed ${run.seed}` : null,
  ].filter((part) => part !== null).join(", ");
  const sharesSeed = (run) => runs.some((other) =>
    other !== run && groupOf(other) === groupOf(run) && other.depth === run.depth);

  function domain(on) {
    const steps = on.flatMap((s) => linesOf(s).flatMap((line) => line.steps));
    const last = steps.reduce((a, b) => Math.max(a, b), 1);
    const least = steps.reduce((a, b) => Math.min(a, b), last);
    const first = state.range === "half" ? last / 2 : state.scale === "log" ? Math.max(1, least) : 0;
    // The drop in the first steps would flatten the rest; a log axis has room for it.
    const counted = state.view === "loss" && state.range === "all" && state.scale === "linear"
      ? last * 0.08 : first;
    let low = state.view === "loss" ? Infinity : 0, high = state.view === "loss" ? -Infinity : 0;
    for (const s of on) {
      for (const line of linesOf(s)) {
        line.steps.forEach((step, i) => {
          if (step < counted) return;
          low = Math.min(low, line.values[i]);
          high = Math.max(high, line.values[i]);
        });
      }
    }
    if (!(high > low)) { low = Number.isFinite(low) ? low - 0.5 : 0; high = low + 1; }
    const margin = (high - low) * 0.05;
    return { first, last: Math.max(last, first + 1), low: low - margin, high: high + margin };
  }

  function path(line, x, y) {
    return line.steps.map((step, i) =>
      `${i ? "L" : "M"}${x.at(step).toFixed(1)} ${y.at(line.values[i]).toFixed(1)}`).join("");
  }

  // One group per run, drawn or not: hidden runs keep their place.
  function curve(s, x, y) {
    const { color, dash, marker } = styleOf(s.run, state.depth === "all");
    const group = shape("g", { class: "curve", "data-run": s.index });
    if (!isOn(s) || state.seeds === "band") { group.setAttribute("display", "none"); return group; }
    const line = (points, kind) => points.steps.length && group.append(shape("path", {
      class: kind, d: path(points, x, y), style: `stroke:${color}`, "stroke-dasharray": dash }));
    if (state.view === "loss") line(s.train, s.validation.steps.length ? "train" : "train alone");
    const points = dotted(s);
    line(points, "validation");
    points.steps.forEach((step, i) => {
      group.append(dot(x.at(step), y.at(points.values[i]), color, marker));
    });
    if (s.run.status === "diverged" && state.view === "loss" && s.train.steps.length) {
      group.append(shape("text", { class: "end", x: x.at(s.train.steps.at(-1)),
        y: y.at(s.train.values.at(-1)) + 5, "text-anchor": "middle", style: `fill:${color}` }, "\u00d7"));
    }
    return group;
  }

  function band(members, x, y) {
    const { color, dash, marker } = styleOf(members[0].run, state.depth === "all");
    const group = shape("g", { class: "seeds" });
    const line = meanAndRange(members.map(dotted).filter((l) => l.steps.length));
    if (!line.steps.length) return group;
    group.append(shape("path", { class: "band", d: bandPath(line, x, y), style: `fill:${color}` }),
      shape("path", { class: "validation", d: path(line, x, y), style: `stroke:${color}`,
        "stroke-dasharray": dash }));
    line.steps.forEach((step, i) => {
      group.append(dot(x.at(step), y.at(line.values[i]), color, marker));
    });
    return group;
  }

  function draw(width) {
    const height = Math.round(Math.max(260, Math.min(440, width * 0.46)));
    const area = { left: 58, right: width - 12, top: 22, bottom: height - 44 };
    const on = series.filter(isOn);
    const { first, last, low, high } = domain(on);
    const x = (state.scale === "log" ? logScale : linearScale)(
      state.scale === "log" ? Math.max(1, first) : first, last, area.left, area.right, width / 110);
    const y = linearScale(low, high, area.bottom, area.top, height / 60);
    drawn = { x, y, area, width, first, last };
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.replaceChildren();
    drawAxes(svg, area, x, y, (tick) => state.view === "loss" ? fixed(tick, Math.max(1, y.digits))
      : tick === 0 ? "0" : signed(tick, y.digits));
    svg.append(
      shape("text", { x: 0, y: 10 }, state.view === "loss" ? "loss, nats per token"
        : "difference of validation losses, nats per token"),
      shape("text", { x: area.right, y: area.bottom + 36, "text-anchor": "end" }, "training step"));
    if (state.view === "difference") {
      svg.append(shape("line", {
        class: "zero", x1: area.left, x2: area.right, y1: y.at(0), y2: y.at(0) }));
    }
    const clip = shape("clipPath", { id: "plot" });
    clip.append(shape("rect", { x: area.left - 5, y: area.top - 5,
      width: area.right - area.left + 10, height: area.bottom - area.top + 5 }));
    const lines = shape("g", { "clip-path": "url(#plot)" });
    lines.append(...series.map((s) => curve(s, x, y)));
    if (state.seeds === "band") lines.append(...bands(on).map((members) => band(members, x, y)));
    svg.append(clip, lines, shape("g", { class: "reading" }));
    if (state.step !== null) read(state.step);
  }

  // What the tooltip says at a step: training at or before it, validation at the last one before.
  function values(on, step) {
    const valueAt = (line, at) => {
      const i = lastAtOrBefore(line.steps, at);
      return i < 0 ? null : line.values[i];
    };
    const measured = Math.max(...on.map((s) => {
      const i = lastAtOrBefore(dotted(s).steps, step);
      return i < 0 ? -1 : dotted(s).steps[i];
    }));
    const rows = on.map((s) => ({
      s, name: name(s.run, true),
      train: state.view === "loss" && state.seeds === "each" && step <= (s.train.steps.at(-1) ?? -1)
        ? valueAt(s.train, step) : null,
      dotted: dotted(s).steps.includes(measured) ? valueAt(dotted(s), measured) : null,
    }));
    const asMeans = rows.length > 12 || state.seeds === "band";
    return { measured, rows: asMeans ? meansOver(rows) : rows };
  }

  function meansOver(rows) {
    const groups = new Map();
    for (const row of rows) {
      const key = name(row.s.run, false);
      groups.set(key, [...(groups.get(key) ?? []), row]);
    }
    const mean = (list) => {
      const known = list.filter((value) => value !== null);
      return known.length ? average(known) : null;
    };
    return [...groups].map(([key, list]) => ({ s: list[0].s, name: `${key}, mean of ${list.length}`,
      train: mean(list.map((row) => row.train)), dotted: mean(list.map((row) => row.dotted)) }));
  }

  function tooltipTable(step, { measured, rows }) {
    const hasTrain = rows.some((row) => row.train !== null);
    const hasDotted = measured >= 0;
    const format = (value) => state.view === "loss" ? fixed(value, 4) : signed(value, 4);
    const head = element("tr", {}, element("th"),
      ...(hasTrain ? [element("th", { class: "number" }, "train")] : []),
      ...(hasDotted ? [element("th", { class: "number" }, state.view === "loss" ?
        `validation at ${count(measured)}` : `at ${count(measured)}`)] : []));
    const lines = rows
      .filter((row) => row.train !== null || row.dotted !== null)
      .sort((a, b) => (a.dotted ?? a.train) - (b.dotted ?? b.train))
      .map((row) => element("tr", {},
        element("th", {}, swatch(styleOf(row.s.run, true)), row.name),
        ...(hasTrain ? [element("td", { class: "number" }, fixed(row.train, 4))] : []),
        ...(hasDotted ? [element("td", { class: "number" }, format(row.dotted))] : [])));
    return [element("b", {}, `Step ${count(step)}`), element("table", {},
      element("thead", {}, head), element("tbody", {}, ...lines))];
  }

  function read(step) {
    const on = series.filter(isOn);
    if (!on.length || !drawn) return hide();
    state.step = Math.max(drawn.first, Math.min(drawn.last, Math.round(step)));
    const { x, area } = drawn;
    const at = x.at(state.step);
    svg.querySelector(".reading").replaceChildren(shape("line", {
      class: "crosshair", x1: at, x2: at, y1: area.top, y2: area.bottom }));
    tooltip.show(at, (area.top + area.bottom) / 2, ...tooltipTable(state.step, values(on, state.step)));
  }

  function hide() {
    state.step = null;
    svg.querySelector(".reading")?.replaceChildren();
    tooltip.hide();
  }

  const redraw = () => { if (drawn) draw(drawn.width); };

  function fillLegend() {
    const shown = series.filter(atDepth).sort((a, b) => a.run.tried - b.run.tried);
    const labels = [...new Set(shown.map((s) => groupOf(s.run)))];
    legend.replaceChildren(...labels.map((label) => {
      const run = runs.find((r) => groupOf(r) === label);
      const button = element("button", { type: "button", "aria-pressed": !state.off.has(label) },
        swatch(styleOf(run, false)), label);
      button.addEventListener("click", () => {
        if (!state.off.delete(label)) state.off.add(label);
        button.setAttribute("aria-pressed", !state.off.has(label));
        redraw();
      });
      return button;
    }));
  }

  function fillCaption() {
    const words = state.view === "difference"
      ? "Validation loss minus the reference's with the same seed at the same step; below zero is better than the reference."
      : series.some((s) => s.validation.steps.length)
        ? state.seeds === "band" ? "Validation loss. "
          : "Thin: training loss, smoothed over 2 % of the run. Thick with points: validation loss. "
        : "Training loss, smoothed over 2 % of the run; no validation was recorded. ";
    const bandWords = state.seeds === "band"
      ? " Line: the mean of the runs of a group. Band: from the lowest to the highest of them." : "";
    caption.textContent = words + bandWords + (state.depth === "all" && depths.length > 1
      ? " Dashes: the fewer the layers, the shorter." : "") +
      (state.view === "loss" && runs.some((run) => run.status === "diverged")
        ? " A cross ends a run that diverged." : "");
  }

  const set = (key) => (value) => {
    state[key] = value;
    if (key === "group") state.off = value === "label" ? tried() : new Set();
    fillLegend();
    fillCaption();
    redraw();
  };
  const controls = element("div", { class: "controls" });
  if (depths.length > 1) {
    controls.append(choice("Layers", [...depths.map((d) => [d, d ?? "?"]), ["all", "all"]],
      state.depth, set("depth")));
  }
  if (series.some((s) => s.difference.steps.length)) {
    const reference = runs.find((run) => run.reference !== null).reference;
    controls.append(choice("Show", [["loss", "loss"], ["difference", `difference to ${reference}`]],
      state.view, set("view")));
  }
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.keys)))];
  if (keys.length) {
    const select = element("select", { id: "group" }, element("option", { value: "label" }, "scheme"),
      ...keys.map((key) => element("option", { value: key }, key)));
    select.addEventListener("change", () => set("group")(select.value));
    controls.append(element("label", { class: "choice", for: "group" }, "Group by ", select));
  }
  if (runs.some(sharesSeed)) {
    controls.append(choice("Seeds", [["each", "each"], ["band", "band"]], state.seeds, set("seeds")));
  }
  controls.append(
    choice("Steps", [["all", "all"], ["half", "last half"]], state.range, set("range")),
    choice("Axis", [["linear", "linear"], ["log", "log"]], state.scale, set("scale")));
  svg.addEventListener("pointermove", (event) => {
    const left = svg.getBoundingClientRect().left;
    read(drawn.x.back(event.clientX - left));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const stride = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (!stride) return;
    event.preventDefault();
    const { x, area } = drawn;
    const at = state.step === null ? (area.left + area.right) / 2
      : x.at(state.step) + (stride * (area.right - area.left)) / 100;
    read(x.back(Math.max(area.left, Math.min(area.right, at))));
  });
  section.append(controls, legend, figure, caption);
  fillLegend();
  fillCaption();
  drawAtWidth(figure, draw);
  return { readMiddle: () => read((drawn.first + drawn.last) / 2) };
}
