// A scheme that keeps its options and the model's size: the base of all but the routed ones.
#pragma once

#include "residual/blocks.h"
#include "wavroute/residual.h"

namespace wavroute {

class ConfiguredResidual : public Residual {
 public:
  // `options`: every option, resolved.
  ConfiguredResidual(Options options, const ModelSize& size)
      : options_(std::move(options)), size_(size) {}

  [[nodiscard]] int64_t block_length() const override { return default_blocks(size_).length; }
  [[nodiscard]] Options options(const Progress&) const override { return options_; }

 protected:
  [[nodiscard]] const ModelSize& size() const { return size_; }
  [[nodiscard]] const Options& given() const { return options_; }

 private:
  Options options_;
  ModelSize size_;
};

}  // namespace wavroute
