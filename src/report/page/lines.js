// Lines over numbered places: sublayers, or the steps of a training.

// chart: { x: [number], name(i) -> text of place i, series: [{ name, color, values: [number or
// null], dash }], log, unit, label, places, digits }
function drawLines(figure, chart) {
  const svg = shape("svg", { role: "img", "aria-label": chart.label });
  figure.prepend(svg);
  const tooltip = makeTooltip(figure);
  let layout = null;

  function range() {
    const all = chart.series.flatMap((one) => one.values)
      .filter((value) => value !== null && (!chart.log || value > 0));
    const low = Math.min(...all), high = Math.max(...all);
    if (chart.log) return low === high ? [low / 2, high * 2] : [low / 1.2, high * 1.2];
    const margin = Math.max((high - low) * 0.05, Math.abs(high) * 1e-3, 1e-9);
    return [low - margin, high + margin];
  }

  function draw(width) {
    const height = 260, area = { left: 62, right: width - 12, top: 22, bottom: height - 44 };
    const [low, high] = range();
    const y = chart.log ? logScale(low, high, area.bottom, area.top, 5)
      : linearScale(low, high, area.bottom, area.top, 5);
    const first = chart.x[0], last = chart.x[chart.x.length - 1];
    const x = linearScale(first === last ? first - 1 : first, first === last ? last + 1 : last,
      area.left, area.right, Math.min(width / 80, chart.x.length));
    x.ticks = x.ticks.filter(Number.isInteger);
    layout = { area, x, y };
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.replaceChildren();
    const format = (tick) => (chart.log ? short(tick) : fixed(tick, y.digits));
    drawAxes(svg, area, x, y, format);
    svg.append(shape("text", { x: 0, y: 10 }, chart.unit), shape("text", { x: area.right,
      y: area.bottom + 36, "text-anchor": "end" }, chart.places));
    for (const one of chart.series) {
      let path = "";
      one.values.forEach((value, i) => {
        if (value === null || (chart.log && value <= 0)) return;
        path += `${path ? "L" : "M"}${x.at(chart.x[i]).toFixed(1)} ${y.at(value).toFixed(1)}`;
      });
      const line = shape("path", { class: "validation", d: path || "M0 0" });
      line.style.stroke = one.color;
      if (one.opacity) line.style.strokeOpacity = one.opacity;
      svg.append(line);
    }
  }

  function read(pixel) {
    svg.querySelector(".crosshair")?.remove();
    const at = layout.x.back(pixel);
    let i = 0;
    chart.x.forEach((place, k) => {
      if (Math.abs(place - at) < Math.abs(chart.x[i] - at)) i = k;
    });
    const left = layout.x.at(chart.x[i]);
    svg.append(shape("line", { class: "crosshair", x1: left, x2: left, y1: layout.area.top,
      y2: layout.area.bottom }));
    const rows = chart.series.slice(0, 12).map((one) => {
      const swatch = element("span", { class: "swatch" });
      swatch.style.background = one.color;
      const value = one.values[i];
      return element("tr", {}, element("th", {}, swatch, one.name), element("td",
        { class: "number" }, value === null ? NONE : chart.log ? short(value) : fixed(value, chart.digits)));
    });
    tooltip.show(left, layout.area.top + 40, element("b", {}, chart.name(i)),
      element("table", {}, element("tbody", {}, ...rows)));
  }

  svg.addEventListener("pointermove", (event) => {
    read(event.clientX - svg.getBoundingClientRect().left);
  });
  svg.addEventListener("pointerleave", () => {
    svg.querySelector(".crosshair")?.remove();
    tooltip.hide();
  });
  drawAtWidth(figure, draw);
  return { readSome: () => read((layout.area.left + layout.area.right) / 2) };
}

// Three digits, or a power of ten.
function short(value) {
  const size = Math.abs(value);
  if (size === 0 || (size >= 0.001 && size < 10000)) {
    return String(Number(value.toPrecision(3))).replace("-", MINUS);
  }
  return value.toExponential(size && Math.log10(size) % 1 === 0 ? 0 : 1).replace("e+", "e")
    .replaceAll("-", MINUS);
}

// What the colours of a chart's lines mean.
function lineLegend(series) {
  return element("div", { class: "legend" }, ...series.map((one) => {
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = one.color;
    return element("span", { class: "choice" }, swatch, one.name);
  }));
}
