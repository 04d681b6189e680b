#include "program/layer_list.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "io/file.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr size_t kLongest = 4096;  // executed layers

[[noreturn]] void fail(const std::string& what, const std::string& given,
                       const std::filesystem::path& path) {
  throw expected(what, given, "in " + path.string(), "for instance [0, 1, 2, 2, 5]");
}

}  // namespace

Layers read_layer_list(const std::filesystem::path& path, int64_t layers) {
  const nlohmann::json document = read_json(path);
  const bool is_object = document.is_object() && document.contains("layers");
  const nlohmann::json& list = is_object ? document.at("layers") : document;
  if (!list.is_array() || list.empty() || list.size() > kLongest) {
    fail(fmt::format("a JSON list of 1 to {} layers", kLongest),
         list.is_array() ? fmt::format("{} entries", list.size()) : list.type_name(), path);
  }
  Layers program;
  for (const nlohmann::json& entry : list) {
    const bool is_layer =
        entry.is_number_unsigned() && entry.get<uint64_t>() < static_cast<uint64_t>(layers);
    if (!is_layer) fail(fmt::format("layers 0 to {}", layers - 1), json_excerpt(entry), path);
    program.push_back(entry.get<int64_t>());
  }
  return program;
}

void write_layer_list(const Layers& program, const std::filesystem::path& path) {
  write_file_atomic(path, nlohmann::json(program).dump() + "\n");
}

std::string program_text(const Layers& program) {
  std::string text;
  const auto add = [&](const std::string& piece) { text += (text.empty() ? "" : ",") + piece; };
  for (size_t i = 0; i < program.size();) {
    size_t same = i + 1;
    while (same < program.size() && program[same] == program[i]) ++same;
    if (same > i + 1) {
      add(fmt::format("{}x{}", program[i], same - i));
      i = same;
      continue;
    }
    // A range ends before a layer that is repeated.
    size_t end = i + 1;
    while (end < program.size() && program[end] == program[end - 1] + 1 &&
           (end + 1 == program.size() || program[end + 1] != program[end])) {
      ++end;
    }
    add(end == i + 1 ? fmt::format("{}", program[i])
                     : fmt::format("{}-{}", program[i], program[end - 1]));
    i = end;
  }
  return text;
}

}  // namespace wavroute
