// The one reader of JSON: whatever the text holds, memory, stack and numbers stay within bounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace wavroute {

struct JsonLimits {
  int depth = 64;                   // of nested lists and objects
  size_t bytes = size_t{16} << 20;  // of text
  size_t values = size_t{2} << 20;  // lists, objects, strings, numbers, ..., keys not counted
};

// Parses one JSON value. UserError "expected JSON, given ..., in NAME:LINE" for anything else: a
// syntax error, text behind the value, bytes that are no UTF-8, a number that neither 64 bits nor a
// finite double hold (1e999, 2^64), a key twice in one object, more than `limits` allow.
[[nodiscard]] nlohmann::json parse_json(std::string_view text, const std::string& name,
                                        const JsonLimits& limits = {});
// The same with lines counted from `first_line`, for a line of a larger file.
[[nodiscard]] nlohmann::json parse_json_line(std::string_view text, const std::string& name,
                                             size_t first_line, const JsonLimits& limits = {});

// Reads and parses a file. UserError as above, or where the file is larger than limits.bytes: a
// large file is not read.
[[nodiscard]] nlohmann::json read_json(const std::filesystem::path& path,
                                       const JsonLimits& limits = {});

// The value as an int64_t; nothing if it is not an integer or is beyond 63 bits.
[[nodiscard]] std::optional<int64_t> json_integer(const nlohmann::json& value);

// UserError where a newer version wrote `object`: its "format" is beyond `newest`, or no number.
// Without one it is of format 1. `what` and `where` as in "a run folder", "runs/a".
void check_format(const nlohmann::json& object, int64_t newest, std::string_view what,
                  const std::string& where);

// A value as a message shows it: one line, at most 60 bytes of it.
[[nodiscard]] std::string json_excerpt(const nlohmann::json& value);

}  // namespace wavroute
