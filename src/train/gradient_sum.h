// The gradients of a step over all processes, summed in parts while the backward goes on.
#pragma once

#include <cstdint>
#include <vector>

#include "train/flat_part.h"
#include "train/processes.h"
#include "wavroute/decoder.h"

namespace wavroute {

enum class Optimizer { kWhole, kSharded };  // whether each process has moments of its shares alone

class GradientSum {
 public:
  // Model and processes outlive it. `least_bytes`: layers are put together until they have as many.
  GradientSum(Decoder& model, Processes& processes, Optimizer optimizer,
              int64_t least_bytes = int64_t{1} << 20);

  [[nodiscard]] Processes& processes() const { return processes_; }
  [[nodiscard]] bool is_sharded() const { return optimizer_ == Optimizer::kSharded; }
  // All parts; together they are all of the buffers.
  [[nodiscard]] const std::vector<FlatPart>& parts() const { return parts_; }
  // What this process updates: its share of every part where the optimizer is sharded, else all.
  [[nodiscard]] const std::vector<FlatPart>& own() const { return own_; }

  // In the last pass of a step, after the backward of a stored layer, or of PassOptions' kHead: its
  // gradients don't change any more. Their sum is started once all of their part are final.
  void layer_is_final(int64_t layer);
  // Starts what is left, and waits for all.
  void finish();
  // The 2-norm of the sum; the same bits in every process.
  [[nodiscard]] double norm() const;
  // After an update of own(): the parameters of all processes, and their copies in the compute
  // type.
  void gather_parameters();

 private:
  void start(size_t part);

  Decoder& model_;
  Processes& processes_;
  Optimizer optimizer_;
  std::vector<FlatPart> parts_, own_;
  std::vector<int64_t> layers_;  // of every part: those that must be final; 0: all at the end
  std::vector<int64_t> waits_;   // how many of them are not, in this step
  std::vector<bool> started_;
  std::vector<size_t> part_of_layer_;  // by stored layer; the last is the head's
};

// Fills `whole`, buffers like the table's groups, from every process' `own` buffers, one for each
// of sum.own(). Called by all.
void gather_shares(const GradientSum& sum, const std::vector<at::Tensor>& own,
                   const std::vector<at::Tensor>& whole);

}  // namespace wavroute
