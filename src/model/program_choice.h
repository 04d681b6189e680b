// A layer program chosen for each sequence from its prompt: `wavroute program train` makes the
// predictor, `--program auto:FILE` uses it. After PoLar (arXiv 2606.06574), whose predictor is a
// network over hidden states; ours [ours] is linear in the mean embedding of the prompt, so that
// the choice costs no pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "wavroute/decoder.h"

namespace wavroute {

// What a predictor knows of a prompt: the mean of the embeddings of its first `prompt` tokens,
// double [d]. ids: at least one.
[[nodiscard]] at::Tensor prompt_features(const Decoder& model, const std::vector<int64_t>& ids,
                                         int64_t prompt);

// Predicts by how much the loss of a text differs under each of some programs.
class ProgramChoice {
 public:
  struct Parts {
    std::vector<LayerProgram> programs;
    int64_t prompt = 0;      // tokens that are looked at
    at::Tensor mean, scale;  // double [d]: features become (x - mean) / scale
    at::Tensor weights;      // double [programs, d]
    at::Tensor bias;         // double [programs]
    double price = 0.0;      // nats that leaving out one layer may cost
    int64_t layers = 0;      // of the model
    std::string tokenizer;   // hash of the model's
  };
  explicit ProgramChoice(Parts parts) : parts_(std::move(parts)) {}

  // UserError for a broken file and for one of another model: other layers, width or tokenizer.
  static ProgramChoice read(const std::filesystem::path& path, const Decoder& model,
                            const std::string& tokenizer_hash);
  void write(const std::filesystem::path& path) const;  // by an atomic rename

  // Index into programs(): the least predicted loss plus price.
  [[nodiscard]] size_t choose(const at::Tensor& features) const;
  // That of a text that begins with `ids`, at least one.
  [[nodiscard]] const LayerProgram& program_for(const Decoder& model,
                                                const std::vector<int64_t>& ids) const {
    return parts_.programs[choose(prompt_features(model, ids, parts_.prompt))];
  }
  [[nodiscard]] const std::vector<LayerProgram>& programs() const { return parts_.programs; }
  [[nodiscard]] int64_t prompt() const { return parts_.prompt; }

 private:
  Parts parts_;
};

}  // namespace wavroute
