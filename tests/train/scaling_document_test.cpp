// The tables of docs/scaling.md, made from the code behind --dry-run --devices. With
// WAVROUTE_WRITE_DOCUMENTS=1 in the environment they are written to the page.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/numbers.h"
#include "io/file.h"
#include "train/device_sizes.h"

namespace wavroute {
namespace {

using scaling::DeviceShare;
using scaling::ModelSizes;
using scaling::Strategy;

struct Shape {
  const char* name;
  int64_t layers, width, heads, kv_heads, hidden, vocab, context;
  bool tied;
};

// GPT-2's sizes with a SwiGLU of as many parameters, then Llama's.
constexpr std::array kShapes = {
    Shape{"125M", 12, 768, 12, 12, 2048, 50304, 1024, true},
    Shape{"350M", 24, 1024, 16, 16, 2816, 50304, 1024, true},
    Shape{"1.3B", 24, 2048, 16, 16, 5504, 32000, 2048, false},
    Shape{"7B", 32, 4096, 32, 32, 11008, 32000, 4096, false},
    Shape{"13B", 40, 5120, 40, 40, 13824, 32000, 4096, false},
    Shape{"70B", 80, 8192, 64, 8, 28672, 128256, 8192, false},
};
constexpr std::array kSchemes = {"prenorm", "block_attnres", "haares", "wav", "full_attnres"};

ModelSizes sizes(const Shape& shape, const std::string& scheme,
                 Recompute recompute = Recompute::kNone) {
  Config config;
  config.model.layers = shape.layers;
  config.model.width = shape.width;
  config.model.heads = shape.heads;
  config.model.kv_heads = shape.kv_heads;
  config.model.hidden = shape.hidden;
  config.model.context = shape.context;
  config.model.tie_embeddings = shape.tied;
  config.residual.scheme = scheme;
  config.train.recompute = recompute;
  Decoder model(decoder_spec(config, shape.vocab), Precision::kBf16, at::kCPU);
  model.use_kernels(KernelChoice::kFused);
  return model_sizes(model, config);
}

// A sequence for each device, a pass for each sequence.
DeviceShare share(const ModelSizes& model, Strategy strategy, int64_t devices, int64_t batch) {
  return scaling::share_of(model, {.batch = batch, .micro_batch = 1}, strategy, devices);
}

std::string line(const std::vector<std::string>& cells) {
  std::string text = "|";
  for (const std::string& cell : cells) text += " " + cell + " |";
  return text + "\n";
}

std::string heading(const std::vector<std::string>& cells) {
  std::string text = line(cells) + "|";
  for (size_t i = 0; i < cells.size(); ++i) text += "---|";
  return text + "\n";
}

std::vector<std::string> with_schemes(std::vector<std::string> cells) {
  cells.insert(cells.end(), kSchemes.begin(), kSchemes.end());
  return cells;
}

std::string of(double bytes, double unit, int digits = 1) {
  return fmt::format("{:.{}f}", bytes / unit, digits);
}

constexpr double kKi = 1024, kGi = 1024 * 1024 * 1024;

std::string shapes_table() {
  std::string text = heading({"", "layers", "width", "kv width", "hidden", "vocabulary", "context",
                              "blocks of", "parameters", "of routers (wav)"});
  for (const Shape& s : kShapes) {
    const ModelSizes plain = sizes(s, "prenorm"), routed = sizes(s, "wav");
    const int64_t block =
        find_scheme("wav").create({}, {s.layers, s.width}, 1e-6)->block_length() / 2;
    text += line({s.name, std::to_string(s.layers), std::to_string(s.width),
                  fmt::format("{:.0f}", plain.kv_width), std::to_string(s.hidden),
                  std::to_string(s.vocab), std::to_string(s.context),
                  fmt::format("{} layers", block), format_magnitude(plain.parameters),
                  fmt::format("{:.3f} %", 100 * (routed.parameters / plain.parameters - 1))});
  }
  return text;
}

std::string activations_table() {
  std::string text = heading(with_schemes({"KiB a token", "recompute"}));
  for (const Shape& s : kShapes) {
    for (const auto& [recompute, word] :
         {std::pair{Recompute::kNone, "none"}, std::pair{Recompute::kBlock, "block"}}) {
      std::vector<std::string> cells = {s.name, word};
      double plain = 0;
      for (const char* scheme : kSchemes) {
        const ModelSizes model = sizes(s, scheme, recompute);
        const double bytes = model.kept + model.passing + model.stream;
        if (plain == 0) plain = bytes;
        cells.push_back(fmt::format("{} ({:.2f})", format_count(bytes / kKi), bytes / plain));
      }
      text += line(cells);
    }
  }
  return text;
}

std::string states_table() {
  std::string text = heading({"GiB a device", "devices", "data parallel", "ZeRO-1", "FSDP",
                              "sent a step: data parallel, ZeRO-1", "FSDP, one pass"});
  for (const Shape& s : kShapes) {
    const ModelSizes model = sizes(s, "wav");
    for (const int64_t n : {1, 8, 64, 1024}) {
      const auto state = [&](Strategy strategy) {
        const DeviceShare d = share(model, strategy, n, n);
        return of(d.parameters + d.gradients + d.optimizer, kGi);
      };
      text +=
          line({s.name, std::to_string(n), state(Strategy::kDataParallel), state(Strategy::kZero1),
                state(Strategy::kFullySharded), of(share(model, Strategy::kZero1, n, n).sent, kGi),
                of(share(model, Strategy::kFullySharded, n, n).sent, kGi)});
    }
  }
  return text;
}

std::string pipeline_table() {
  std::string text = heading(with_schemes({"tensors (KiB a token)", "stages"}));
  for (const Shape& s : kShapes) {
    for (const int64_t stages : {2, 4, 8, 16}) {
      if (stages > s.layers) continue;
      std::vector<std::string> cells = {s.name, std::to_string(stages)};
      for (const char* scheme : kSchemes) {
        const double tensors = scaling::widest_boundary(sizes(s, scheme), stages);
        cells.push_back(
            fmt::format("{:.0f} ({})", tensors,
                        of(tensors * static_cast<double>(s.width) * scaling::kWide, kKi, 0)));
      }
      text += line(cells);
    }
  }
  return text;
}

std::string intensity_table() {
  std::string text = heading(with_schemes({"FLOPs a sent byte", "stages"}));
  for (const Shape& s : kShapes) {
    for (const int64_t stages : {4, 8}) {
      std::vector<std::string> cells = {s.name, std::to_string(stages)};
      for (const char* scheme : kSchemes) {
        const DeviceShare d = share(sizes(s, scheme), Strategy::kPipeline, stages, 4 * stages);
        cells.push_back(format_magnitude(d.flops_per_sent_byte()));
      }
      text += line(cells);
    }
  }
  return text;
}

std::string sequence_table() {
  std::string text =
      heading({"of one sequence, MiB a device", "devices", "tensor parallel, a training step",
               "prefill: keys and values", "prefill: gated besides", "prefill: any other scheme"});
  for (const Shape& s : kShapes) {
    for (const int64_t n : {4, 8}) {
      const ModelSizes model = sizes(s, "wav");
      const DeviceShare tensor = share(model, Strategy::kTensorParallel, n, 1);
      text += line({s.name, std::to_string(n),
                    tensor.why_not.empty() ? of(tensor.sent, kKi * kKi, 0) : "–",
                    of(scaling::prefill_share(model, n).keys_and_values, kKi * kKi, 1),
                    of(scaling::prefill_share(sizes(s, "gated"), n).scheme, kKi * kKi, 1),
                    of(scaling::prefill_share(model, n).scheme, 1, 0)});
    }
  }
  return text;
}

TEST(ScalingDocument, HasTheTablesOfTheCode) {
  const std::filesystem::path path = std::filesystem::path(WAVROUTE_DOCUMENTS) / "scaling.md";
  const std::map<std::string, std::string> tables = {
      {"shapes", shapes_table()},       {"activations", activations_table()},
      {"states", states_table()},       {"pipeline", pipeline_table()},
      {"intensity", intensity_table()}, {"sequence", sequence_table()}};
  std::string page = read_file(path);
  const std::string before = page;
  for (const auto& [name, table] : tables) {
    const std::string mark = fmt::format("<!-- table: {} -->\n", name);
    const size_t begin = page.find(mark);
    ASSERT_NE(begin, std::string::npos) << mark;
    const size_t first = begin + mark.size(), end = page.find("\n\n", begin) + 1;
    page.replace(first, end - first, table);
  }
  if (std::getenv("WAVROUTE_WRITE_DOCUMENTS") != nullptr) write_file_atomic(path, page);
  EXPECT_EQ(page, before)
      << "WAVROUTE_WRITE_DOCUMENTS=1 build/bin/train_tests --gtest_filter='ScalingDocument.*'";
}

}  // namespace
}  // namespace wavroute
