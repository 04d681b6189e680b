// Runs of one group and depth as one line and a band: the mean over seeds, and from the lowest to the
// highest of them.

// lines: [{ steps, values }] -> the same with low and high, at the steps that all of them have.
function meanAndRange(lines) {
  const at = new Map();
  for (const line of lines) {
    line.steps.forEach((step, i) => at.set(step, [...(at.get(step) ?? []), line.values[i]]));
  }
  const common = [...at].filter(([, values]) => values.length === lines.length)
    .sort((a, b) => a[0] - b[0]);
  return {
    steps: common.map(([step]) => step),
    values: common.map(([, values]) => average(values)),
    low: common.map(([, values]) => Math.min(...values)),
    high: common.map(([, values]) => Math.max(...values)),
  };
}

// The outline of a band as an SVG path: along the lowest, and back along the highest.
function bandPath(line, x, y) {
  const point = (step, value) => `${x.at(step).toFixed(1)} ${y.at(value).toFixed(1)}`;
  const there = line.steps.map((step, i) => point(step, line.low[i]));
  const back = line.steps.map((step, i) => point(step, line.high[i])).reverse();
  return there.length ? `M${[...there, ...back].join("L")}Z` : "";
}

// Series by what they are drawn as: [[series]], in the order of the first of each.
function bandGroups(series, key) {
  const groups = new Map();
  for (const s of series) groups.set(key(s), [...(groups.get(key(s)) ?? []), s]);
  return [...groups.values()];
}
