#include "data/stop_text.h"

#include <algorithm>
#include <utility>

namespace wavroute {
namespace {

// The length of the longest end of `text` with which `stop` begins; less than all of `stop`.
size_t begun(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (stop.starts_with(text.substr(text.size() - length))) return length;
  }
  return 0;
}

}  // namespace

StopText::StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopText::feed(std::string_view piece) {
  if (has_stopped_) return {};
  held_ += piece;
  size_t end = std::string::npos;
  for (const std::string& stop : stops_) end = std::min(end, held_.find(stop));
  size_t shown = held_.size();
  if (end != std::string::npos) {
    has_stopped_ = true;
    shown = end;
  } else {
    size_t held = 0;
    for (const std::string& stop : stops_) held = std::max(held, begun(held_, stop));
    shown -= held;
  }
  std::string text = held_.substr(0, shown);
  held_.erase(0, has_stopped_ ? held_.size() : shown);
  return text;
}

std::string StopText::finish() { return std::exchange(held_, {}); }

}  // namespace wavroute
