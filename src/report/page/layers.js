// The sizes of a run's layers over its training, where train.log_layers asked for them.

// From the first line to the last: blue to orange through grey.
function depthColor(i, count) {
  const share = count > 1 ? i / (count - 1) : 0;
  return `color-mix(in oklab, var(--series-2) ${Math.round(100 * share)}%, var(--series-1))`;
}

function drawRunLayers(section, runs) {
  const kinds = [["stream", "stream"], ["update", "updates"], ["entropy", "entropy of routers"]];
  const words = { stream: "Root mean square of what every sublayer reads, and the read-out.",
    update: "Root mean square of what every sublayer writes.",
    entropy: "Entropy of every router's weights." };
  let run = runs[0], kind = "stream";
  const holder = element("div"), controls = element("div", { class: "controls" });
  const lines = () => run.layers[kind].map((values, i, all) => ({ values, opacity: 0.8,
    name: i === all.length - 1 && kind !== "update" ? "read-out" : `sublayer ${i + 1}`,
    color: depthColor(i, all.length) })).filter((line) => line.values.some((v) => v !== null));

  function show() {
    const series = lines();
    if (!series.length) {
      holder.replaceChildren(element("p", { class: "note" }, "This run has none."));
      return;
    }
    const ends = [series[0], series[series.length - 1]].filter((one, i, all) => all.indexOf(one) === i);
    const figure = element("figure", {}, element("figcaption", {}, `${words[kind]} The colour goes ` +
      "from the first to the last."));
    holder.replaceChildren(lineLegend(ends), figure);
    drawLines(figure, { series, x: run.layers.steps, name: (i) => `Step ${count(run.layers.steps[i])}`,
      log: kind !== "entropy", unit: kind === "entropy" ? "nats" : "", places: "step", digits: 3,
      label: words[kind] });
  }

  if (runs.length > 1) {
    const select = element("select");
    runs.forEach((one, i) => select.append(element("option", { value: i }, title(one))));
    select.addEventListener("change", () => { run = runs[Number(select.value)]; show(); });
    controls.append(element("label", { class: "choice" }, "Run ", select));
  } else {
    controls.append(element("span", { class: "choice" }, title(run)));
  }
  controls.append(choice("Show", kinds.filter(([key]) => runs.some((one) => one.layers[key].length)),
    kind, (key) => { kind = key; show(); }));
  section.append(controls, holder);
  show();
}
