#include "residual/routed.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "ops/backend.h"
#include "residual/bank_stream.h"
#include "residual/options.h"
#include "residual/parts_stream.h"
#include "wavroute/error.h"

namespace wavroute {

DetailBasis phase_basis() {
  return {"phase", "P", [](const Site& site, int64_t, int64_t) {
            return site.kind == SublayerKind::kAttention ? 1.0 : -1.0;
          }};
}

DetailBasis split_basis() {
  return {"split", "Q", [](const Site&, int64_t position, int64_t length) {
            return 2 * (position + 1) <= length ? 1.0 : -1.0;
          }};
}

RoutedResidual::RoutedResidual(RoutedSpec spec, Options options, const ModelSize& size)
    : spec_(std::move(spec)), options_(std::move(options)), size_(size) {}

void RoutedResidual::declare(ParameterTable& table) {
  const auto details = static_cast<int64_t>(spec_.details.size());
  const auto declare_router = [&](const std::string& prefix) {
    Router& router = routers_.emplace_back();
    router.query = &table.declare(prefix + "_proj.weight", {1, size_.width}, Decay::kNo, {0.0});
    router.gain = &table.declare(prefix + "_norm.weight", {size_.width}, Decay::kNo, {1.0});
    if (details > 0) {
      router.bias = &table.declare(prefix + "_bias", {details}, Decay::kNo, {spec_.beta});
    }
  };
  routers_.reserve(static_cast<size_t>(size_.sublayers() + 1));
  routers_.emplace_back();  // sublayer 1 reads the embedding itself
  for (int64_t i = 1; i < size_.sublayers(); ++i) {
    declare_router(
        fmt::format("model.layers.{}.{}_res", i / 2, i % 2 == 0 ? "self_attention" : "mlp"));
  }
  declare_router("model.output_attn_res");
}

const Router& RoutedResidual::router(const std::optional<Site>& site) const {
  return site ? routers_[static_cast<size_t>(site->index())] : routers_.back();
}

std::unique_ptr<Stream> RoutedResidual::open(const StreamOptions& options) const {
  // A layer that runs again would return to the block of its attention if its MLP's is another.
  const bool goes_forward = options.order == LayerOrder::kForward && spec_.blocks.length % 2 == 0;
  const bool takes_order = options.order == LayerOrder::kPlain || (goes_forward && !options.record);
  if (options.backend->routes() != nullptr && takes_order) {
    return std::make_unique<PartsStream>(*this, options);
  }
  return std::make_unique<BankStream>(*this, options);
}

void RoutedResidual::check_program() const {
  if (!spec_.takes_programs) {
    throw expected("a scheme that takes layer programs", "one whose sources are single updates", {},
                   "all schemes but act and full_attnres take layer programs");
  }
}

PlainStart RoutedResidual::start_from_plain() {
  PlainStart start;
  start.stream_scale = static_cast<double>(spec_.blocks.count + 1);  // the read-out's average
  return start;
}

double RoutedResidual::standing_states(bool training) const {
  // The bank; its gradient, and the prefixes of one block.
  const double per_block = 1.0 + static_cast<double>(spec_.details.size());
  const double rows = 1.0 + static_cast<double>(spec_.blocks.count) * per_block;
  if (!training) return rows;
  return 2.0 * rows + static_cast<double>(spec_.blocks.length) * per_block;
}

double RoutedResidual::carried_states(int64_t sublayer) const {
  const Blocks& blocks = spec_.blocks;
  const size_t sums = 1 + spec_.details.size();
  const int64_t block = blocks.block_of(sublayer);
  // Updates of the same signs share a part; either the parts or the sums make the others.
  std::set<std::vector<double>> parts;
  for (int64_t i = block * blocks.length; i < sublayer; ++i) {
    std::vector<double> signs;
    for (const DetailBasis& basis : spec_.details) {
      signs.push_back(basis.sign(Site::at(i), blocks.position_of(i), blocks.length_of(block)));
    }
    parts.insert(std::move(signs));
  }
  const size_t running = std::min(parts.size(), sums);
  return 1.0 + static_cast<double>(block) * static_cast<double>(sums) +
         static_cast<double>(running);
}

OptionSpec partial_details_option() {
  return {"partial_details",
          OptionType::kBool,
          true,
          "the unfinished block offers its details too [ours]",
          false,
          {}};
}

OptionSpec beta_option() {
  return {"beta", OptionType::kFloat, -4.0, "initial bias of a detail source [ours]", false, {}};
}

OptionSpec matching_epsilon_option() {
  return {"matching_epsilon",
          OptionType::kFloat,
          1e-12,
          "under the root of the RMS matching [ours]",
          false,
          {}};
}

std::unique_ptr<Residual> make_routed(const Options& given, const std::vector<OptionSpec>& specs,
                                      const std::string& scheme, const ModelSize& size,
                                      double norm_eps, std::vector<DetailBasis> details) {
  Options options = with_defaults(given, specs, scheme);
  RoutedSpec spec;
  spec.blocks = resolve_blocks(options.at("blocks"), size, /*even_length=*/!details.empty());
  options["blocks"] = spec.blocks.count;
  if (!details.empty()) {
    spec.partial_details = get<bool>(options, "partial_details");
    spec.beta = get<double>(options, "beta");
    spec.matching_eps = get<double>(options, "matching_epsilon");
    if (spec.matching_eps < 0.0) {
      throw expected("a number of at least 0", spec.matching_eps, "as residual.matching_epsilon");
    }
  }
  spec.details = std::move(details);
  spec.norm_eps = norm_eps;
  return std::make_unique<RoutedResidual>(std::move(spec), std::move(options), size);
}

}  // namespace wavroute
