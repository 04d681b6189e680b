#include <fmt/format.h>

#include <charconv>
#include <string_view>
#include <utility>

#include "program/layer_list.h"
#include "wavroute/decoder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr size_t kLongestProgram = 4096;  // executed layers

[[noreturn]] void fail(const std::string& what, std::string_view piece) {
  throw expected(what, fmt::format("'{}'", piece), "in a layer program",
                 "for instance 0-11,12x3,14-23 (layers from 0, ranges inclusive) or every-other");
}

int64_t number(std::string_view text, std::string_view piece) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value < 0) {
    fail("a layer, a range or a repeat", piece);
  }
  return value;
}

// "12", "0-11", "12x3", "4-7x2" appended to `order`.
void append_piece(std::string_view piece, int64_t layers, std::vector<int64_t>& order) {
  std::string_view range = piece;
  int64_t repeats = 1;
  if (const size_t x = piece.find('x'); x != std::string_view::npos) {
    repeats = number(piece.substr(x + 1), piece);
    range = piece.substr(0, x);
    if (repeats < 1) fail("a repeat count of at least 1", piece);
  }
  const size_t dash = range.find('-');
  const int64_t first = number(range.substr(0, dash), piece);
  const int64_t last =
      dash == std::string_view::npos ? first : number(range.substr(dash + 1), piece);
  if (first > last) fail("a range that goes upwards", piece);
  if (last >= layers) fail(fmt::format("layers 0 to {}", layers - 1), piece);
  for (int64_t r = 0; r < repeats; ++r) {
    for (int64_t layer = first; layer <= last; ++layer) {
      order.push_back(layer);
      if (order.size() > kLongestProgram) {
        fail(fmt::format("at most {} executed layers", kLongestProgram), piece);
      }
    }
  }
}

}  // namespace

LayerProgram::LayerProgram(int64_t layers) : order_(all_layers(layers)) {}

LayerProgram::LayerProgram(std::vector<int64_t> order, int64_t layers)
    : order_(std::move(order)), plain_(order_ == all_layers(layers)) {}

LayerOrder LayerProgram::order() const {
  if (plain_) return LayerOrder::kPlain;
  return std::ranges::is_sorted(order_) ? LayerOrder::kForward : LayerOrder::kAny;
}

std::string LayerProgram::text() const { return program_text(order_); }

LayerProgram LayerProgram::parse(const std::string& text, int64_t layers) {
  if (text.starts_with('@')) return {read_layer_list(text.substr(1), layers), layers};
  std::vector<int64_t> order;
  if (text == "every-other") {
    for (int64_t layer = 0; layer < layers; layer += 2) order.push_back(layer);
  } else {
    std::string_view rest = text;
    while (true) {
      const size_t comma = rest.find(',');
      append_piece(rest.substr(0, comma), layers, order);
      if (comma == std::string_view::npos) break;
      rest = rest.substr(comma + 1);
    }
  }
  return {std::move(order), layers};
}

}  // namespace wavroute
