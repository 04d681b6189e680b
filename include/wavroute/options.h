// Options of a residual scheme, as a configuration gives them. Torch-free.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace wavroute {

// A TOML value of the kinds that an option can have. "auto" is the string "auto".
using OptionValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>,
                                 std::vector<std::string>>;
using Options = std::map<std::string, OptionValue>;

enum class OptionType { kBool, kInt, kFloat, kString, kIntList, kStringList };

// What a scheme declares about one of its options.
struct OptionSpec {
  std::string name;
  OptionType type;
  OptionValue default_value;         // of `type`, or the string "auto" where accepts_auto
  std::string doc;                   // one line; says [ours] where the constant is not the paper's
  bool accepts_auto = false;         // "auto" stands for a value computed from the model's size
  std::vector<std::string> choices;  // for kString: the allowed words; empty = any
};

// The options of one scheme: what the configuration checks a [residual] table against.
struct SchemeOptions {
  std::string scheme;
  std::string summary;
  std::vector<OptionSpec> options;
};
using SchemeCatalog = std::vector<SchemeOptions>;

// The width and depth that options such as blocks = "auto" are resolved against.
struct ModelSize {
  int64_t layers = 0;
  int64_t width = 0;
  [[nodiscard]] int64_t sublayers() const { return 2 * layers; }
};

}  // namespace wavroute
