// Puts the page together. The data is
//   { runs: [{ label, tried, keys, reference, depth, seed, status, train: { steps, loss },
//              validation: { steps, loss, bits_per_byte }, layers, routing }],
//     rows: [{ label, depth, tokens_per_s, ratio, memory }] }
// with null for what is not known; tried: a learning rate or a budget, hidden at first; keys: those of
// the configuration in which any two runs differ, with their values; layers is null or
// { steps, stream, update, entropy }, each but the steps a list of lines; routing is null or
//   { step, tokens, sources: { columns: [{ label, type }], rows: [{ weights, ... }] }, gates,
//     depth: { mean, shares } }.

// Colour and marker follow the label, dashes the depth.
function makeStyle(data) {
  const labels = [...new Set([...data.rows, ...data.runs].map((entry) => entry.label))];
  const depths = [...new Set(data.runs.map((run) => run.depth))].sort((a, b) => b - a);
  const color = (label) => `var(--series-${Math.max(0, labels.indexOf(label)) % 8})`;
  const style = (run, byDepth) => {
    const rank = byDepth ? depths.indexOf(run.depth) : 0;  // 0 = the deepest, a full line
    return { color: color(run.label), marker: Math.floor(labels.indexOf(run.label) / 8) % 3,
      dash: rank === 0 ? "none" : `${Math.max(1.5, 8 / rank)} 3` };
  };
  return { color, style };
}

function title(run) {
  return [run.label, run.depth === null ? null : `${run.depth} layers`,
    run.seed === null ? null : `seed ${run.seed}`].filter((part) => part !== null).join(", ");
}

function drawRouting(section, runs) {
  const holder = element("div");
  const handles = { readSome: () => {} };

  function show(run) {
    const { routing } = run;
    holder.replaceChildren();
    const add = (draw, data, words) => {
      const figure = element("figure", {}, element("figcaption", {}, words));
      holder.append(figure);
      return draw(figure, data);
    };
    const when = [routing.tokens === null ? null : `Mean over ${count(routing.tokens)} tokens`,
      routing.step === null ? null : `at step ${count(routing.step)}`].filter(Boolean).join(" ");
    const prefix = when ? `${when}. ` : "";
    if (routing.sources.columns.length) {
      holder.append(element("div", { class: "controls" }, heatScale()));
      const map = add(drawHeatMap, routing.sources, `${prefix}Weight of every source at every ` +
        "sublayer; a row sums to one. The shade follows the square root of the weight, so that " +
        "small weights can be seen.");
      handles.readSome = map.readSome;
    }
    if (routing.gates.length) {
      add(drawGates, routing.gates,
        `${prefix}Gate of every sublayer: the mean, and the range from the 10th to the 90th ` +
        "percentile. Circles: attention; squares: MLP.");
    }
    if (routing.depth) {
      add(drawHaltingDepth, routing.depth, `${prefix}How many layers a token runs through.`);
    }
  }

  const select = element("select", { id: "routing-run" });
  runs.forEach((run, i) => select.append(element("option", { value: i }, title(run))));
  select.addEventListener("change", () => show(runs[Number(select.value)]));
  const label = runs.length > 1 ? element("label", { class: "choice", for: "routing-run" }, "Run ", select)
    : element("span", { class: "choice" }, title(runs[0]));
  section.append(element("div", { class: "controls" }, label), holder);
  // The first to show is one with as many types of sources as any, at the greatest depth.
  const types = (run) => new Set(run.routing.sources.columns.map((column) => column.type)).size;
  const first = runs.reduce((best, run, i) => {
    const more = types(run) - types(runs[best]) || (run.depth ?? 0) - (runs[best].depth ?? 0);
    return more > 0 ? i : best;
  }, 0);
  select.value = first;
  show(runs[first]);
  return handles;
}

function buildPage() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { color, style } = makeStyle(data);
  const section = (id) => document.getElementById(id);
  setUpTheme();
  if (data.runs.some((run) => run.train.steps.length || run.validation.steps.length)) {
    section("curves").hidden = false;
    const curves = drawCurves(section("curves"), data.runs, style);
    if (location.hash === "#test-hover") curves.readMiddle();
  }
  section("bars").hidden = !drawBars(section("bars"), data.rows, color);
  const layered = data.runs.filter((run) => run.layers);
  if (layered.length) {
    section("layers").hidden = false;
    drawRunLayers(section("layers"), layered);
  }
  const routed = data.runs.filter((run) => run.routing && (run.routing.sources.columns.length ||
    run.routing.gates.length || run.routing.depth)).sort((a, b) => a.tried - b.tried);
  if (routed.length) {
    section("routing").hidden = false;
    const routing = drawRouting(section("routing"), routed);
    if (location.hash === "#test-hover") routing.readSome();
  }
}

buildPage();
document.documentElement.dataset.ready = "1";
