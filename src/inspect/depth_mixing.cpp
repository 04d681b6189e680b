#include "inspect/depth_mixing.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <memory>
#include <vector>

#include "ops/backend.h"

namespace wavroute {
namespace {

// What runs through the stream in place of its rows.
class UnitPass {
 public:
  UnitPass(const Decoder& model, const LayerProgram* program, const Progress& progress,
           LayerPass& pass)
      : model_(model), sites_(sites_of(model, program)), pass_(pass) {
    if (program != nullptr) options_.order = program->order();
    options_.backend =
        &model.backend_for({.program = options_.order != LayerOrder::kPlain, .taps = true});
    options_.pass.progress = progress;
    options_.coefficients = &pass.coefficients;
    const at::Tensor& h = pass.reads.front();
    const Grain grain = pass.coefficients.grain();
    batch_ = grain.tokens ? h.size(0) : 1;
    length_ = grain.tokens ? h.size(1) : 1;
    width_ = h.size(2);
    rows_ = h.options();
  }

  [[nodiscard]] int64_t columns() const { return static_cast<int64_t>(sites_.size()) + 1; }

  // Every write is a unit vector over the writes: a read is its row of M.
  void run_all(const OnMixing& tell) {
    const auto unit = [&](int64_t column) {
      at::Tensor row = at::zeros({batch_, length_, columns()}, rows_);
      row.select(-1, column).fill_(1.0);
      return row;
    };
    run(unit, [&](int64_t reader, const at::Tensor& h) {
      tell(reader, 0, h.narrow(-1, 0, reader + 1).movedim(-1, 0).unsqueeze(-1));
    });
  }

  // One write is one in every channel, the others are zero: a read is one column of its row.
  void run_column(int64_t column, const OnMixing& tell) {
    const at::Tensor one = at::ones({batch_, length_, width_}, rows_);
    const at::Tensor zero = at::zeros_like(one);
    run([&](int64_t written) { return written == column ? one : zero; },
        [&](int64_t reader, const at::Tensor& h) {
          if (reader >= column) tell(reader, column, h.unsqueeze(0));
        });
  }

 private:
  template <typename Write, typename Read>
  void run(const Write& write, const Read& read) {
    pass_.coefficients.set(Coefficients::Phase::kHold);
    const std::unique_ptr<Stream> stream = model_.residual().open(options_);
    stream->begin(write(0));
    for (size_t i = 0; i < sites_.size(); ++i) {
      const auto reader = static_cast<int64_t>(i);
      read(reader, stream->read(sites_[i]));
      stream->write(sites_[i], write(reader + 1));
    }
    read(columns() - 1, stream->read_out());
  }

  const Decoder& model_;
  std::vector<Site> sites_;
  LayerPass& pass_;
  StreamOptions options_;
  int64_t batch_ = 1, length_ = 1, width_ = 1;
  at::TensorOptions rows_;
};

}  // namespace

void mix_depths(const Decoder& model, const LayerProgram* program, const Progress& progress,
                LayerPass& pass, const OnMixing& tell) {
  const at::NoGradGuard no_grad;
  UnitPass units(model, program, progress, pass);
  if (!pass.coefficients.grain().channels) {
    units.run_all(tell);
  } else {
    for (int64_t column = 0; column < units.columns(); ++column) units.run_column(column, tell);
  }
  pass.coefficients.set(Coefficients::Phase::kPass);
}

}  // namespace wavroute
