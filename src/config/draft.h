// A configuration that is being built from its layers: base files, the file, the command line.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "config/assignment.h"
#include "wavroute/config.h"

namespace wavroute {

// What a configuration is loaded for: it decides which schemes' options [residual] may hold.
enum class ConfigUse {
  kTrain,    // those of residual.scheme
  kCompare,  // those of every scheme that the comparison names
};

class Draft {
 public:
  Draft(const SchemeCatalog& catalog, ConfigUse use) : catalog_(catalog), use_(use) {}
  // Continues from a finished configuration; options that a new scheme doesn't know are dropped.
  Draft(const Config& config, const SchemeCatalog& catalog, ConfigUse use);

  // Applies one file, or all of the command line, over the layers so far. A later layer may choose
  // another scheme, and options of the earlier scheme are then dropped; within a layer, an option
  // that its schemes don't know is a UserError. For a comparison, it is one unless a later layer
  // names a scheme that has it. A later layer may name another data.train, and an earlier
  // data.max_bytes is then dropped.
  void apply(std::span<const Assignment> layer);

  // Checks the whole and returns it. `default_name` is the name of a run that was given none.
  [[nodiscard]] Config finish(const std::string& default_name);

  // Where each key was last written; after finish() without the options that were dropped.
  [[nodiscard]] const std::map<std::string, Place>& places() const { return places_; }

 private:
  struct Variant {
    std::string label;
    std::vector<Assignment> assignments;
    Place place;
  };

  void apply_one(const Assignment& assignment);
  void forget_limit(std::span<const Assignment> layer);
  void read_variants(const Assignment& assignment);
  [[nodiscard]] Variant read_variant(const Node& node, const Place& place) const;
  // The schemes whose options [residual] may have, and whether anything named them.
  [[nodiscard]] std::vector<std::string> schemes() const;
  [[nodiscard]] bool schemes_given() const;
  [[nodiscard]] bool known_to_schemes(const std::string& option) const;
  void settle_options();
  [[nodiscard]] CompareVariant checked_variant(const Variant& variant) const;

  const SchemeCatalog& catalog_;
  ConfigUse use_;
  Config config_;
  std::vector<Variant> variants_;  // kept until finish() checks them with everything else
  std::map<std::string, Place> places_;
  // Options of [residual] that no scheme named so far has; a later layer must name one that has
  // them.
  std::map<std::string, Place> waiting_;
  bool continued_ = false;
};

// The rules that hold between keys (width and heads, two betas, no seed twice, ...); UserError.
void check_consistency(const Config& config, const std::map<std::string, Place>& places);

}  // namespace wavroute
