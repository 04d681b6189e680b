#include "report/program_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "io/file.h"
#include "report/html_parts.h"
#include "report/page_file.h"

namespace wavroute {
namespace {

constexpr double kWidth = 560, kHeight = 340, kLeft = 56, kRight = 16, kTop = 14, kBottom = 46;
constexpr int kColours = 8;  // of page/style.css

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

std::string colour_of(int series) { return fmt::format("var(--series-{})", series % kColours); }

std::string chart(const std::vector<ProgramPoint>& points, Number across, const char* name) {
  const Axis x(points, across, kLeft, kWidth - kRight);
  const Axis y(points, &ProgramPoint::loss, kHeight - kBottom, kTop);
  std::string svg =
      fmt::format(R"(<figure><svg viewBox="0 0 {1} {2}" role="img" aria-label="Loss by {0}">)",
                  name, kWidth, kHeight);
  for (const double mark : x.marks()) {
    svg += fmt::format(
        R"(<path class="grid" d="M{0:.1f} {1}V{2}"/><text x="{0:.1f}" y="{3}" text-anchor="middle">{4:g}</text>)",
        x.at(mark), kTop, kHeight - kBottom, kHeight - kBottom + 16, mark);
  }
  for (const double mark : y.marks()) {
    svg += fmt::format(
        R"(<path class="grid" d="M{0} {1:.1f}H{2}"/><text x="{3}" y="{4:.1f}" text-anchor="end">{5:.4g}</text>)",
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
    const std::string stroke = colour_of(colour++);
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
  std::string text = "<p class=\"note\">Loss upwards, nats per token on held-out text.";
  int colour = 0;
  for (const std::string& series : series_of(points)) {
    text += fmt::format(" <b style='color:{}'>&#9679; {}</b>", colour_of(colour++),
                        html_escaped(series));
  }
  return text + "</p>\n";
}

std::string table(const std::vector<ProgramPoint>& points) {
  std::string rows;
  for (const ProgramPoint& point : points) {
    rows += fmt::format(
        "<tr><th>{}</th><td>{}</td><td class=\"number\">{:.4g}</td><td class=\"number\">{:.4f}"
        "</td><td class=\"number\">{:.3f}</td></tr>\n",
        html_escaped(point.series), html_escaped(point.label), point.layers, point.loss,
        point.ms_per_token);
  }
  return "<div class=\"scroll\"><table>\n<thead><tr><th>found by</th><th>program</th>"
         "<th class=\"number\">layers</th><th class=\"number\">loss</th>"
         "<th class=\"number\">ms a token</th></tr></thead>\n<tbody>\n" +
         rows + "</tbody>\n</table></div>\n";
}

}  // namespace

void write_program_page(const std::string& title, const std::vector<std::string>& words,
                        const std::vector<ProgramPoint>& points,
                        const std::filesystem::path& path) {
  std::string summary;
  for (const std::string& paragraph : words) {
    summary += fmt::format("<p class=\"lead\">{}</p>\n", html_escaped(paragraph));
  }
  Page page;
  page.command = "program search";
  page.title = title;
  page.main =
      filled(page_file("programs.html"),
             {{"summary", summary},
              {"charts", chart(points, &ProgramPoint::layers, "layers run") +
                             chart(points, &ProgramPoint::ms_per_token, "milliseconds a token")},
              {"legend", legend(points)},
              {"table", table(points)}});
  page.scripts = {"theme.js", "programs.js"};
  write_file_atomic(path, whole_page(page));
}

}  // namespace wavroute
