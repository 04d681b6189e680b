// Heat maps of signed numbers with a name for every row and column.

// grid: { rows: [name], columns: [name], value(r, c) -> number or null, full(r) -> the size that has
// the full shade, words(r, c) -> the lines of the tooltip, label }
function drawGrid(figure, grid) {
  const svg = shape("svg", { tabindex: 0, role: "img",
    "aria-label": `${grid.label}. Arrow keys read the numbers.` });
  figure.prepend(svg);
  const tooltip = makeTooltip(figure);
  let layout = null, chosen = null;

  function plan(width) {
    const labels = width < 560 ? 96 : 124;
    const cell = Math.max(2, Math.min(grid.widest ?? 34, (width - labels - 4) / grid.columns.length));
    const rows = grid.rows.length;
    const high = rows > 60 ? 8 : rows > 30 ? 13 : 19;
    const longest = Math.max(...grid.columns.map((name) => name.length));
    return { labels, cell, high, top: 24, everyRow: Math.ceil(14 / high),
      everyColumn: Math.ceil((longest * 7 + 6) / cell) };
  }

  function draw(width) {
    layout = plan(width);
    const { labels, cell, high, top } = layout;
    const height = top + grid.rows.length * high + 4;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.replaceChildren();
    grid.columns.forEach((name, c) => {
      if (c % layout.everyColumn) return;
      svg.append(shape("text", { x: labels + (c + 0.5) * cell, y: top - 8,
        "text-anchor": "middle" }, name));
    });
    const inset = cell > 6 && high > 10 ? 1 : 0.25;
    grid.rows.forEach((name, r) => {
      const y = top + r * high;
      const last = grid.rows.length - 1;
      if (r === last || (r % layout.everyRow === 0 && last - r >= layout.everyRow)) {
        svg.append(shape("text", { x: labels - 10, y: y + high / 2 + 4, "text-anchor": "end" },
          name));
      }
      const full = grid.full(r);
      grid.columns.forEach((_, c) => {
        const value = grid.value(r, c);
        if (value === null) return;
        const box = { x: labels + c * cell + inset / 2, y: y + inset / 2, width: cell - inset,
          height: high - inset };
        const shade = full > 0 ? Math.sqrt(Math.min(1, Math.abs(value) / full)) : 0;
        svg.append(shape("rect", { class: "ground", ...box }),
          shape("rect", { class: value < 0 ? "cell negative" : "cell", ...box,
            "fill-opacity": shade.toFixed(3) }));
      });
    });
    if (chosen) read(...chosen);
  }

  function read(r, c) {
    svg.querySelector(".chosen")?.remove();
    const inside = r >= 0 && r < grid.rows.length && c >= 0 && c < grid.columns.length;
    chosen = inside ? [r, c] : null;
    if (!inside || grid.value(r, c) === null) { tooltip.hide(); return; }
    const x = layout.labels + c * layout.cell, y = layout.top + r * layout.high;
    svg.append(shape("rect", { class: "chosen", x, y, width: layout.cell, height: layout.high }));
    const [first, ...others] = grid.words(r, c);
    tooltip.show(x + layout.cell, y + layout.high / 2, element("b", {}, first),
      ...others.flatMap((line) => [element("br"), line]));
  }

  function hide() { chosen = null; svg.querySelector(".chosen")?.remove(); tooltip.hide(); }

  watchCells(svg, { rows: grid.rows.length, columns: grid.columns.length, read, hide,
    chosen: () => chosen,
    cellAt: (x, y) => [Math.floor((y - layout.top) / layout.high),
      Math.floor((x - layout.labels) / layout.cell)] });
  drawAtWidth(figure, draw);
  return {
    redraw: () => { if (layout) draw(Math.round(figure.clientWidth)); },
    readSome: () => read(grid.rows.length - 1, Math.min(1, grid.columns.length - 1)),
  };
}
