// What the tests of the configuration share: a catalog of their own, files, and expected errors.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "config/load.h"
#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {

// An option without a list of words.
inline OptionSpec option(std::string name, OptionType type, OptionValue value,
                         bool accepts_auto = false) {
  return {std::move(name), type, std::move(value), "", accepts_auto, {}};
}

// Schemes with options of every type. Not the real catalog: config names no scheme.
inline SchemeCatalog test_catalog() {
  using T = OptionType;
  using Words = std::vector<std::string>;
  const OptionSpec blocks = option("blocks", T::kInt, std::string("auto"), true);
  const OptionSpec partial = option("partial_details", T::kBool, true);
  OptionSpec details = option("details", T::kStringList, Words{"phase", "split"});
  details.choices = {"phase", "split"};
  OptionSpec norm = option("norm", T::kString, std::string("pre"));
  norm.choices = {"pre", "none"};
  return {
      {"prenorm", "", {}},
      {"rezero", "", {norm}},
      {"layerscale", "", {option("init", T::kFloat, std::string("auto"), true)}},
      {"block_layerscale", "", {blocks}},
      {"layerdrop", "", {option("p", T::kFloat, 0.2), option("rescale", T::kBool, false)}},
      {"gated", "", {option("windows", T::kIntList, std::vector<int64_t>{1, 2, 4, 8})}},
      {"act", "", {option("tau", T::kFloat, 1e-3), option("shared", T::kBool, false)}},
      {"denseformer", "", {option("dilation", T::kInt, int64_t{1})}},
      {"mhc_lite", "", {option("streams", T::kInt, int64_t{4})}},
      {"full_attnres", "", {}},
      {"block_attnres", "", {blocks}},
      {"haares", "", {blocks, partial}},
      {"wav", "", {blocks, partial, details}},
  };
}

// A folder that is removed after the test.
class ConfigFiles : public ::testing::Test {
 protected:
  // Writes a file into the folder and returns its path.
  [[nodiscard]] std::string write(const std::string& name, const std::string& text) const {
    testing::put(folder_ / name, text);
    return (folder_ / name).string();
  }
  // Loads a file of that text, named run.toml.
  [[nodiscard]] LoadedConfig load(const std::string& text,
                                  const std::vector<std::string>& sets = {},
                                  ConfigUse use = ConfigUse::kTrain) const {
    return load_config(write("run.toml", text), sets, catalog_, use);
  }
  [[nodiscard]] LoadedConfig compare(const std::string& text,
                                     const std::vector<std::string>& sets = {}) const {
    return load(text, sets, ConfigUse::kCompare);
  }

  const SchemeCatalog catalog_ = test_catalog();
  const testing::TemporaryFolder temporary_;
  const std::filesystem::path folder_ = temporary_.path();
};

struct Message {
  std::string what, hint;
};

// The message of the UserError that `call` must throw.
inline Message user_error(const std::function<void()>& call) {
  try {
    call();
  } catch (const UserError& error) {
    return {error.what(), error.hint()};
  }
  ADD_FAILURE() << "expected a UserError";
  return {};
}

}  // namespace wavroute
