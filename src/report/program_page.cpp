#include "report/program_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "io/file.h"
#include "report/html_parts.h"

namespace wavroute {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --text: #1c1c1c; --faint: #5c5c5c; --line: #d8d8d8; --page: #fff;
        --s0: #1763b5; --s1: #b35400; --s2: #5b7c00; --s3: #8a3ea8; --s4: #a3243b; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e8e8; --faint: #a5a5a5; --line: #444; --page: #161616;
          --s0: #6cb0ff; --s1: #ffa24d; --s2: #b2d84f; --s3: #d79bf0; --s4: #ff8a9c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
       max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin: 0; }
.charts { display: flex; flex-wrap: wrap; gap: 1.5rem; margin: 1.5rem 0; }
figure { margin: 0; flex: 1 1 30rem; min-width: 0; }
svg { width: 100%; height: auto; } svg text { fill: var(--faint); font-size: 12px; }
.axis { stroke: var(--line); fill: none; } .legend { color: var(--faint); }
.legend b { font-weight: 600; }
table { border-collapse: collapse; } td, th { padding: .25rem .8rem .25rem 0; text-align: right; }
td:first-child, th:first-child, td:nth-child(2), th:nth-child(2) { text-align: left; }
th { border-bottom: 1px solid var(--line); font-weight: 600; }
td:nth-child(2) { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
)";

constexpr double kWidth = 560, kHeight = 340, kLeft = 56, kRight = 16, kTop = 14, kBottom = 46;
constexpr int kColours = 5;

using Number = double ProgramPoint::*;

// A range of values, with room, and round numbers to mark it.
class Axis {
 public:
  Axis(const std::vector<ProgramPoint>& points, Number of, double from, double to)
      : from_(from), to_(to) {
    const auto [low, high] = std::ranges::minmax(points, {}, of);
    low_ = low.*of, high_ = high.*of;
    const double room = high_ > low_ ? 0.05 * (high_ - low_) : 0.5;
    low_ -= room, high_ += room;
  }
  [[nodiscard]] double at(double value) const {
    return from_ + (value - low_) / (high_ - low_) * (to_ - from_);
  }
  [[nodiscard]] std::vector<double> marks() const {
    const double rough = (high_ - low_) / 5.0;
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    const double step = power * (rough / power > 5 ? 10 : rough / power > 2 ? 5 : 2);
    std::vector<double> marks;
    for (double mark = std::ceil(low_ / step) * step; mark <= high_; mark += step) {
      marks.push_back(mark);
    }
    return marks;
  }

 private:
  double from_, to_, low_ = 0.0, high_ = 1.0;
};

std::vector<std::string> series_of(const std::vector<ProgramPoint>& points) {
  std::vector<std::string> names;
  for (const ProgramPoint& point : points) {
    if (std::ranges::find(names, point.series) == names.end()) names.push_back(point.series);
  }
  return names;
}

std::string chart(const std::vector<ProgramPoint>& points, Number across, const char* name) {
  const Axis x(points, across, kLeft, kWidth - kRight);
  const Axis y(points, &ProgramPoint::loss, kHeight - kBottom, kTop);
  std::string svg =
      fmt::format(R"(<figure><h2>{0}</h2><svg viewBox="0 0 {1} {2}" role="img" aria-label="{0}">)",
                  name, kWidth, kHeight);
  for (const double mark : x.marks()) {
    svg += fmt::format(
        R"(<path class="axis" d="M{0:.1f} {1}V{2}"/><text x="{0:.1f}" y="{3}" text-anchor="middle">{4:g}</text>)",
        x.at(mark), kTop, kHeight - kBottom, kHeight - kBottom + 16, mark);
  }
  for (const double mark : y.marks()) {
    svg += fmt::format(
        R"(<path class="axis" d="M{0} {1:.1f}H{2}"/><text x="{3}" y="{4:.1f}" text-anchor="end">{5:.4g}</text>)",
        kLeft, y.at(mark), kWidth - kRight, kLeft - 6, y.at(mark) + 4, mark);
  }
  int colour = 0;
  for (const std::string& series : series_of(points)) {
    std::vector<ProgramPoint> own;
    std::ranges::copy_if(points, std::back_inserter(own),
                         [&](const ProgramPoint& point) { return point.series == series; });
    std::ranges::sort(own, {}, across);
    std::string path;
    for (const ProgramPoint& point : own) {
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x.at(point.*across),
                          y.at(point.loss));
    }
    const std::string stroke = fmt::format("var(--s{})", colour++ % kColours);
    svg +=
        fmt::format(R"(<path d="{}" fill="none" stroke="{}" stroke-width="1.5"/>)", path, stroke);
    for (const ProgramPoint& point : own) {
      svg += fmt::format(
          R"(<circle cx="{:.1f}" cy="{:.1f}" r="4" fill="{}"><title>{}: {}, {:.1f} layers, loss {:.4f}, {:.3f} ms a token</title></circle>)",
          x.at(point.*across), y.at(point.loss), stroke, html_escaped(series),
          html_escaped(point.label), point.layers, point.loss, point.ms_per_token);
    }
  }
  return svg + fmt::format(R"(<text x="{}" y="{}" text-anchor="middle">{}</text></svg></figure>)",
                           (kLeft + kWidth - kRight) / 2, kHeight - 8, name);
}

std::string legend(const std::vector<ProgramPoint>& points) {
  std::string text = "<p class=\"legend\">";
  int colour = 0;
  for (const std::string& series : series_of(points)) {
    text += fmt::format("<b style='color:var(--s{})'>&#9679; {}</b> &nbsp; ", colour++ % kColours,
                        html_escaped(series));
  }
  return text + "Loss upwards: nats per token on held-out text.</p>";
}

std::string table(const std::vector<ProgramPoint>& points) {
  std::string rows;
  for (const ProgramPoint& point : points) {
    rows += fmt::format(
        "<tr><td>{}</td><td>{}</td><td>{:.4g}</td><td>{:.4f}</td><td>{:.3f}</td></tr>\n",
        html_escaped(point.series), html_escaped(point.label), point.layers, point.loss,
        point.ms_per_token);
  }
  return "<div class=\"wide\"><table><tr><th>found by</th><th>program</th><th>layers</th>"
         "<th>loss</th><th>ms a token</th></tr>\n" +
         rows + "</table></div>";
}

}  // namespace

void write_program_page(const std::string& title, const std::vector<std::string>& words,
                        const std::vector<ProgramPoint>& points,
                        const std::filesystem::path& path) {
  std::string body = fmt::format("<h1>{}</h1>", html_escaped(title));
  for (const std::string& paragraph : words) {
    body += fmt::format("<p>{}</p>\n", html_escaped(paragraph));
  }
  body += "<div class=\"charts\">" + chart(points, &ProgramPoint::layers, "layers run") +
          chart(points, &ProgramPoint::ms_per_token, "milliseconds a token") + "</div>" +
          legend(points) + table(points);
  write_file_atomic(path, fmt::format("<!doctype html>\n<html lang=\"en\"><head><meta "
                                      "charset=\"utf-8\"><meta name=\"viewport\" "
                                      "content=\"width=device-width\"><title>{}</title><style>{}"
                                      "</style></head><body>\n{}\n</body></html>\n",
                                      html_escaped(title), kStyle, body));
}

}  // namespace wavroute
