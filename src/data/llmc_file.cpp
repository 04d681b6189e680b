#include "data/llmc_file.h"

#include <fmt/format.h>

#include <array>
#include <cstring>

#include "wavroute/error.h"

namespace wavroute {
namespace {

// As dev/data/data_common.py of llm.c writes them.
struct Kind {
  int32_t magic;
  int32_t version;
  int width;
};
constexpr std::array kKinds = {Kind{20240520, 1, 2}, Kind{20240801, 7, 4}};

[[noreturn]] void refuse(const std::string& what, const std::string& given,
                         const std::string& name) {
  throw expected(what, given, fmt::format("in {}, a token file of llm.c", name),
                 "the file is damaged or cut short, or another version wrote it: make it again");
}

}  // namespace

std::optional<LlmcHeader> find_llmc_header(std::string_view content, const std::string& name) {
  std::array<int32_t, 3> begin{};
  if (content.size() < sizeof begin) return std::nullopt;
  std::memcpy(begin.data(), content.data(), sizeof begin);
  const auto& [magic, version, tokens] = begin;
  for (const Kind& kind : kKinds) {
    if (kind.magic != magic) continue;
    if (content.size() < kLlmcHeaderBytes) {
      refuse(fmt::format("a header of {} bytes", kLlmcHeaderBytes),
             fmt::format("{}", content.size()), name);
    }
    if (kind.version != version) {
      refuse(fmt::format("version {}", kind.version), fmt::format("{}", version), name);
    }
    const size_t body = content.size() - kLlmcHeaderBytes;
    if (tokens < 0 || body != static_cast<size_t>(tokens) * static_cast<size_t>(kind.width)) {
      refuse(fmt::format("{} tokens of {} bytes after the header", tokens, kind.width),
             fmt::format("{} bytes", body), name);
    }
    return LlmcHeader{kind.width, version, tokens};
  }
  return std::nullopt;
}

}  // namespace wavroute
