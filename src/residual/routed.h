// What the routed schemes share: blocks whose sums are sources, and a router before every sublayer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "residual/blocks.h"
#include "wavroute/residual.h"

namespace wavroute {

// A zero-sum signed sum of a block's updates: the coefficient of update `position` (from 0) of a
// block of `length` sublayers.
struct DetailBasis {
  std::string type;    // "phase", "split"
  std::string symbol;  // "P", "Q"
  double (*sign)(const Site& site, int64_t position, int64_t length);
};

[[nodiscard]] DetailBasis phase_basis();  // +1 attention, -1 MLP
[[nodiscard]] DetailBasis split_basis();  // +1 in the first half of the block, -1 after

struct RoutedSpec {
  Blocks blocks;
  std::vector<DetailBasis> details;
  std::string summary_symbol = "S";
  bool partial_details = true;  // the running block offers its details too
  double beta = -4.0;           // initial bias of a detail [ours]
  double matching_eps = 1e-12;  // [ours]
  double norm_eps = 1e-6;
  bool takes_programs = true;
};

// Parameters of one router. `bias` is null without details.
struct Router {
  Parameter* query = nullptr;  // w [1, d]; null: there is no router
  Parameter* gain = nullptr;   // g [d]
  Parameter* bias = nullptr;   // beta [number of detail bases]
};

class RoutedResidual final : public Residual {
 public:
  // `options`: returned by options().
  RoutedResidual(RoutedSpec spec, Options options, const ModelSize& size);

  void declare(ParameterTable& table) override;
  [[nodiscard]] std::unique_ptr<Stream> open(const StreamOptions& options) const override;
  [[nodiscard]] int64_t block_length() const override { return spec_.blocks.length; }
  void check_program() const override;
  // Fresh routers average their sources; details, at their bias, get a little of the weight.
  [[nodiscard]] PlainStart start_from_plain() override;
  [[nodiscard]] double kept_states() const override {
    return static_cast<double>(size_.sublayers());  // every update
  }
  [[nodiscard]] double standing_states(bool training) const override;
  // The finished sources, and the running block's sums.
  [[nodiscard]] double carried_states(int64_t sublayer) const override;
  [[nodiscard]] Options options(const Progress&) const override { return options_; }

  [[nodiscard]] const RoutedSpec& spec() const { return spec_; }
  // The router before `site`, or of the read-out. Sublayer 1 has none (null query).
  [[nodiscard]] const Router& router(const std::optional<Site>& site) const;

 private:
  RoutedSpec spec_;
  Options options_;
  ModelSize size_;
  std::vector<Router> routers_;  // by Site::index(); the last one is the read-out's
};

// Shared by the scheme files.
[[nodiscard]] OptionSpec partial_details_option();
[[nodiscard]] OptionSpec beta_option();
[[nodiscard]] OptionSpec matching_epsilon_option();

// A scheme over blocks with these details; `specs` are the options of the scheme `scheme`.
[[nodiscard]] std::unique_ptr<Residual> make_routed(const Options& given,
                                                    const std::vector<OptionSpec>& specs,
                                                    const std::string& scheme,
                                                    const ModelSize& size, double norm_eps,
                                                    std::vector<DetailBasis> details);

}  // namespace wavroute
