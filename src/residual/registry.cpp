#include <fmt/format.h>

#include <algorithm>

#include "base/nearest.h"
#include "residual/schemes.h"
#include "wavroute/error.h"
#include "wavroute/residual.h"

namespace wavroute {

bool Residual::runs_layer(int64_t, const Pass&) const { return true; }

std::span<const SchemeInfo> residual_schemes() {
  static const std::vector<SchemeInfo> all = {
#define SCHEME(name) schemes::name(),
#include "residual/schemes.def"
#undef SCHEME
  };
  return all;
}

const SchemeInfo& find_scheme(const std::string& name) {
  const auto all = residual_schemes();
  const auto found = std::ranges::find(all, name, &SchemeInfo::name);
  if (found != all.end()) return *found;
  std::vector<std::string> names;
  for (const SchemeInfo& scheme : all) names.push_back(scheme.name);
  throw expected("a residual scheme", "'" + name + "'", {},
                 fmt::format("did you mean '{}'?", nearest(name, names)));
}

const SchemeCatalog& scheme_catalog() {
  static const SchemeCatalog catalog = [] {
    SchemeCatalog result;
    for (const SchemeInfo& scheme : residual_schemes()) {
      result.push_back({scheme.name, scheme.summary, scheme.options});
    }
    return result;
  }();
  return catalog;
}

}  // namespace wavroute
