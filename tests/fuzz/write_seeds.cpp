// write_fuzz_seeds FOLDER CONFIGS: valid inputs for every target, made by the program itself where
// it writes such files. Where it doesn't, they are spelled out here.
#include <array>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "data/token_file.h"
#include "fuzz.h"
#include "io/checkpoint.h"
#include "io/file.h"
#include "report/comparison.h"
#include "wavroute/safetensors.h"

using namespace wavroute;
using std::filesystem::path;

namespace {

constexpr const char* kMetrics =
    "{\"step\":1,\"tokens\":8,\"loss\":5.5,\"tokens_per_s\":100,\"peak_rss_bytes\":1000}\n"
    "{\"step\":2,\"tokens\":16,\"loss\":4.5,\"val_loss\":4.25,\"bits_per_byte\":6.1}\n"
    "{\"step\":4,\"val_loss\":3.0,\"bits_per_byte\":4.3}\n";
constexpr const char* kSummary =
    R"({"scheme":"wav","label":"wav","layers":12,"seed":1,"steps":4,"val_loss":3.0,)"
    R"("bits_per_byte":4.3,"tokens_per_s":240.0,"parameters":1000,"peak_rss_bytes":3000,)"
    R"("status":"finished"})";
constexpr const char* kRouting =
    R"({"sites":[{"layer":0,"kind":"attn","sources":["e","S1"],"weights":[0.25,0.75]}],)"
    R"("gates":[0.5],"depth":[1,2]})";
constexpr const char* kLlama =
    R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":256,)"
    R"("hidden_size":64,"intermediate_size":176,"num_hidden_layers":2,"num_attention_heads":4,)"
    R"("num_key_value_heads":2,"max_position_embeddings":128,"rms_norm_eps":1e-05,)"
    R"("rope_theta":10000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,)"
    R"("low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":64},)"
    R"("hidden_act":"silu","tie_word_embeddings":true})";

void write_weights(const path& file) {
  std::array<std::byte, 24> bytes{};
  write_safetensors(file,
                    {{"norm.weight", Dtype::kF32, {4}, std::span(bytes).first(16)},
                     {"embed.weight", Dtype::kBF16, {2, 2}, std::span(bytes).last(8)}},
                    {{"format", "pt"}});
}

void write_tokens(const path& file, const Tokenizer& tokenizer) {
  std::vector<uint32_t> ids(40);
  std::iota(ids.begin(), ids.end(), 0U);
  TokenFileWriter writer(file, tokenizer, 40);
  writer.append(ids);
  writer.commit();
}

// Version 1 has no trailer, and so no checksum that keeps a changed byte from being looked at.
void write_old_tokens(const path& file, const path& newer) {
  std::string content = read_file(newer);
  content.resize(content.size() - 64);
  content[8] = 1;
  fuzz::put(file, content);
}

void write_state(const path& seeds) {
  CheckpointWriter writer(fuzz::scratch(), 3);
  for (const char* name :
       {"config.json", "model.safetensors", "optimizer.safetensors", "tokenizer.json"}) {
    writer.write(name, "{}");
  }
  const path checkpoint =
      writer.finish({{"val_loss", 3.5}, {"tokens", 96}, {"updates", 3}, {"steps", 10}});
  fuzz::put(seeds / "trained", read_file(checkpoint / "state.json"));
}

void write_comparison(const path& file) {
  Comparison comparison;
  comparison.name = "demo";
  for (const char* label : {"prenorm", "wav"}) {
    for (int64_t seed = 1; seed <= 2; ++seed) {
      Cell cell;
      cell.label = cell.scheme = label;
      cell.depth = 12;
      cell.seed = seed;
      cell.run = std::string("runs/") + label + std::to_string(seed);
      cell.status = CellStatus::kFinished;
      cell.val_loss = 3.0 + 0.1 * static_cast<double>(seed);
      comparison.cells.push_back(cell);
    }
    comparison.speed.push_back({label, 12, 1000.0, 5.0, 1e9});
  }
  fuzz::put(file, comparison_document(comparison).dump());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const path seeds = argv[1];
  for (const auto& entry : std::filesystem::directory_iterator(argv[2])) {
    if (entry.path().extension() != ".toml") continue;
    fuzz::put(seeds / "config" / entry.path().stem(), read_file(entry.path()));
  }
  const auto bytes = make_bytes_tokenizer();
  const auto chars = make_chars_tokenizer("Grün ist 3 \xE2\x82\xAC\n");
  fuzz::put(seeds / "tokenizer" / "bytes", bytes->to_json());
  fuzz::put(seeds / "tokenizer" / "chars", chars->to_json());
  std::filesystem::create_directories(seeds / "safetensors");
  std::filesystem::create_directories(seeds / "tokens");
  write_weights(seeds / "safetensors" / "two");
  write_tokens(seeds / "tokens" / "bytes", *bytes);
  write_old_tokens(seeds / "tokens" / "version_1", seeds / "tokens" / "bytes");
  write_state(seeds / "state");
  write_comparison(seeds / "comparison" / "grid");
  fuzz::put(seeds / "metrics" / "rows", kMetrics);
  fuzz::put(seeds / "model_config" / "llama", kLlama);
  fuzz::put(seeds / "json" / "llama", kLlama);
  fuzz::put(seeds / "json" / "routing", kRouting);
  fuzz::put(seeds / "run" / "summary", std::string(1, '\0') + kSummary);
  fuzz::put(seeds / "run" / "metrics", std::string(1, '\1') + kMetrics);
  fuzz::put(seeds / "run" / "env", std::string(1, '\2') + R"({"machine":{"cpu":"x","cores":2}})");
  fuzz::put(seeds / "run" / "routing", std::string(1, '\3') + kRouting);
  fuzz::put(seeds / "run" / "config",
            std::string(1, '\4') + "[model]\nlayers = 12\n[residual]\nscheme = \"wav\"\n");
  return 0;
}
