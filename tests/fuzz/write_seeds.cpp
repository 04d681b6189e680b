// write_fuzz_seeds FOLDER CONFIGS: valid inputs for every target, written by the program's own
// functions if it has them, else spelled out here.
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>
#include <vector>

#include "catalog.h"
#include "chat/template.h"
#include "config/llama_config.h"
#include "config/load.h"
#include "data/llmc_file.h"
#include "data/manifest.h"
#include "data/source_bytes.h"
#include "data/token_file.h"
#include "formats/foreign_model.h"
#include "formats/gguf_names.h"
#include "formats/tokenizer_files.h"
#include "fuzz.h"
#include "io/checkpoint.h"
#include "io/checkpoint_state.h"
#include "io/file.h"
#include "io/gguf.h"
#include "io/json_text.h"
#include "report/comparison.h"
#include "report/html.h"
#include "report/run_data.h"
#include "tests/data/bpe_json.h"
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
// As RoutingTap writes it.
constexpr const char* kRouting =
    R"({"scheme":"wav","step":4,"tokens":32,)"
    R"("sublayers":[{"sublayer":1,"layer":0,"kind":"attention","entropy":0.56,"sources":[)"
    R"({"label":"e","type":"summary","block":0,"weight":0.25},)"
    R"({"label":"S1","type":"summary","block":1,"weight":0.75}]},)"
    R"({"sublayer":2,"kind":"read_out","entropy":0.0,"sources":[)"
    R"({"label":"P1","type":"phase","block":1,"weight":1.0}]}],)"
    R"("gates":[{"sublayer":1,"layer":0,"kind":"mlp","mean":0.5,"p10":0.25,"p90":0.75}],)"
    R"("depth":{"mean":1.5,"histogram":[30,10]}})";
constexpr const char* kLlama =
    R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":256,)"
    R"("hidden_size":64,"intermediate_size":176,"num_hidden_layers":2,"num_attention_heads":4,)"
    R"("num_key_value_heads":2,"max_position_embeddings":128,"rms_norm_eps":1e-05,)"
    R"("rope_theta":10000.0,"rope_scaling":{"rope_type":"default"},"head_dim":16,)"
    R"("layer_types":["full_attention","full_attention"],"eos_token_id":[1,2],)"
    R"("hidden_act":"silu","tie_word_embeddings":true})";

// A seed that its reader refuses would start the fuzzer behind that refusal.
template <typename Read>
void check(const path& seed, const Read& read) {
  try {
    read();
  } catch (const UserError& error) {
    std::fprintf(stderr, "%s is refused: %s\n", seed.c_str(), error.what());
    std::exit(1);
  }
}

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

// Version 1 has no trailer, and so no checksum that would hide a changed byte from the reader.
void write_old_tokens(const path& file, const path& newer) {
  std::string content = read_file(newer);
  content.resize(content.size() - 64);
  content[8] = 1;
  fuzz::put(file, content);
}

// The first two bytes are those of documents_fuzz.cpp.
void write_documents(const path& seeds) {
  const std::string lines = "{\"text\": \"a\\u20ac\"}\n\n{\"id\": 1, \"text\": \"\"}\n";
  fuzz::put(seeds / "text", std::string("\0\7", 2) + "one<|end|>two\n<|end|> <|end|>");
  fuzz::put(seeds / "lines", "\1\3" + lines);
  fuzz::put(seeds / "articles", "\2\5 \n = A = \n \n text \n = = B = = \n \n = C = \n \n text \n");
}

void write_manifest(const path& seed) {
  Manifest manifest;
  manifest.tokenizer = {"bytes", 256, std::string(64, 'a')};
  manifest.sources = {{"a.txt", std::string(64, 'b'), 10, 2}};
  manifest.files = {{"train_0000.bin", SplitName::kTrain, {2, 8, 8}, std::string(64, 'c')},
                    {"valid_0000.bin", SplitName::kValid, {1, 2, 2}, std::string(64, 'd')}};
  fuzz::put(seed, to_json(manifest).dump());
  check(seed, [&] { (void)manifest_from_json(parse_json(read_file(seed), "m"), "m"); });
}

void write_llmc(const path& seeds) {
  const auto write = [&](const char* name, int32_t magic, int32_t version, size_t width) {
    const std::array<int32_t, 3> begin = {magic, version, 3};
    std::string content(1024 + 3 * width, '\0');
    std::memcpy(content.data(), begin.data(), sizeof begin);
    fuzz::put(seeds / name, content);
    check(seeds / name, [&] { (void)find_llmc_header(content, name).value(); });
  };
  write("gpt2", 20240520, 1, 2);
  write("llama3", 20240801, 7, 4);
}

// Two members, as gzip makes them, and a frame, as zstd does.
void write_packed(const path& seeds) {
  const auto write = [&](const char* name, std::string_view hex) {
    std::string content;
    for (size_t i = 0; i < hex.size(); i += 2) {
      content += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
    }
    fuzz::put(seeds / name, content);
    check(seeds / name, [&] {
      SourceBytes source(seeds / name);
      std::string piece(100, '\0');
      while (source.read(piece) > 0) {
      }
    });
  };
  write("gzip",
        "1f8b08000000000002034b542849ad28d1514804d35c00d6029dd60f0000001f8b0800000000000203cbcd2f4a"
        "05007cf2528b04000000");
  write("zstd", "28b52ffd200f7900006120746578742c206120746578740a");
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
  nlohmann::json first = read_state(checkpoint);  // format 1 had neither of these
  for (const char* key : {"format", "state_sha256"}) first.erase(key);
  fuzz::put(seeds / "format_1", first.dump(2) + "\n");
  for (const char* name : {"trained", "format_1"}) {
    fuzz::put(checkpoint / "state.json", read_file(seeds / name));
    check(seeds / name, [&] { (void)read_state(checkpoint); });
  }
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

// The first byte says which file of a run it is, as in run_fuzz.cpp.
void write_run_file(const path& seeds, char number, const path& name, const std::string& text) {
  const path seed = seeds / name.stem(), run = fuzz::scratch() / "run";
  fuzz::put(seed, std::string(1, number) + text);
  std::filesystem::remove_all(run);
  fuzz::put(run / "metrics.jsonl", kMetrics);
  fuzz::put(run / name, text);
  check(seed, [&] { (void)read_run(run); });
  const path page = fuzz::scratch() / "page.html";
  check(seed, [&] { write_report(std::span(&run, 1), page); });
  const bool is_shown = read_file(page).find("\"gates\":[{") != std::string::npos;
  fuzz::require(is_shown == (name == "routing.json"), "the page shows the routing that there is");
}

// Byte-pair encodings of the two kinds, each with a text behind it as in tokenizer_fuzz.cpp.
void write_bpe(const path& seeds) {
  using testing::byte_level_tokenizer, testing::llama2_tokenizer;
  const std::string mark = "\xE2\x96\x81";
  nlohmann::json plain = byte_level_tokenizer({"h e", "t he"});
  nlohmann::json llama3 = plain, lower = plain;
  constexpr const char* kLlama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  llama3["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", kLlama3}}}, {"behavior", "Isolated"}},
        {{"type", "Digits"}, {"individual_digits", true}},
        testing::byte_level_part(false)}}};
  llama3["normalizer"] = {{"type", "NFC"}};
  lower["normalizer"] = {{"type", "Sequence"},
                         {"normalizers", {{{"type", "NFKC"}}, {{"type", "Lowercase"}}}}};
  nlohmann::json token = testing::added_token("<x>", false);
  token["lstrip"] = token["rstrip"] = token["single_word"] = token["normalized"] = true;
  lower["added_tokens"].push_back(token);
  nlohmann::json spaces = llama2_tokenizer({mark, "a", mark + "a"}, {mark + " a"});
  nlohmann::json metaspace = spaces;
  metaspace["normalizer"] = nullptr;
  metaspace["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", mark}, {"prepend_scheme", "first"}};
  metaspace["decoder"] = metaspace["pre_tokenizer"];
  for (const auto& [name, json] :
       {std::pair("gpt2", plain), std::pair("llama3", llama3), std::pair("lower", lower),
        std::pair("llama2", spaces), std::pair("metaspace", metaspace)}) {
    const std::string text = json.dump();
    fuzz::put(seeds / name, text + std::string("\0 the <X> a\n", 12));
    check(seeds / name, [&] { (void)tokenizer_from_json(text); });
  }
}

// A Llama of one layer with both kinds of tokenizers that are read.
void write_gguf(const path& file, const char* kind) {
  ModelConfig m;
  m.layers = 1;
  m.width = 4;
  m.heads = m.kv_heads = 2;
  m.hidden = 6;
  m.tie_embeddings = true;
  constexpr uint32_t kTokens = 6;
  GgufWriter writer;
  writer.add("general.architecture", std::string("llama"));
  for (const auto& [key, value] : std::initializer_list<std::pair<const char*, uint32_t>>{
           {"llama.block_count", 1},
           {"llama.embedding_length", 4},
           {"llama.feed_forward_length", 6},
           {"llama.attention.head_count", 2},
           {"llama.context_length", 8},
           {"llama.attention.key_length", 2},
           {"llama.rope.dimension_count", 2},
           {"tokenizer.ggml.bos_token_id", 1},
           {"tokenizer.ggml.eos_token_id", 2}}) {
    writer.add_u32(key, value);
  }
  writer.add_f32("llama.rope.freq_base", 10000.0F);
  writer.add("llama.rope.scaling.type", std::string("linear"));
  writer.add_f32("llama.rope.scaling.factor", 2.0F);
  writer.add("tokenizer.ggml.model", std::string(kind));
  writer.add("tokenizer.ggml.pre", std::string("smollm"));
  writer.add("tokenizer.ggml.tokens",
             std::vector<std::string>{"<unk>", "<s>", "</s>", "a", "b", "ab"});
  writer.add_i32s("tokenizer.ggml.token_type", std::vector<int32_t>{2, 3, 3, 1, 1, 1});
  writer.add_f32s("tokenizer.ggml.scores", std::vector<float>{0, 0, 0, -2, -3, -1});
  writer.add("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  for (const LlamaTensor& tensor : llama_tensors(m, kTokens)) {
    int64_t numbers = 1;
    for (const int64_t size : tensor.shape) numbers *= size;
    writer.add_tensor(GgufNames::of(tensor.name), GgmlType::kF16, tensor.shape, [numbers] {
      return quantize(GgmlType::kF16, std::vector<float>(static_cast<size_t>(numbers), 0.5F));
    });
  }
  std::filesystem::create_directories(file.parent_path());
  writer.write(file);
  check(file, [&] { (void)open_gguf_model(file); });
}

// The first byte says which file of llama2.c it is, as in llama2c_fuzz.cpp.
void write_llama2c(const path& seeds) {
  const auto words = [](std::initializer_list<int32_t> values) {
    std::string bytes;
    for (const int32_t value : values) {
      for (int i = 0; i < 4; ++i) bytes += static_cast<char>(static_cast<uint32_t>(value) >> 8 * i);
    }
    return bytes;
  };
  // Width 4, hidden 3, one layer, two heads and one of keys, five tokens, a context of 2.
  const std::string model = words({4, 3, 1, 2, 1, 5, 2}) + std::string(4 * 120, '\0');
  std::string tokens = words({4});
  for (const char* text : {"<unk>", "\n<s>\n", "\n</s>\n", "a", "b", "ab"}) {
    tokens += words({0, static_cast<int32_t>(std::string_view(text).size())}) + text;
  }
  const path scratch = fuzz::scratch() / "seed.bin";
  fuzz::put(scratch, model);
  check(seeds / "model", [&] { (void)open_llama2c(scratch); });
  fuzz::put(seeds / "model", "\1" + model);
  fuzz::put(scratch, tokens);
  check(seeds / "tokens", [&] { (void)read_llama2c_tokenizer(scratch, 6); });
  fuzz::put(seeds / "tokens", std::string(1, '\0') + tokens);
}

// Every kind of statement, and many expressions.
void write_chat_templates(const path& seeds) {
  const auto write = [&](const char* name, const std::string& text) {
    fuzz::put(seeds / name, text);
    const ChatInput input{
        {{"system", "s"}, {"user", "u"}, {"assistant", "a"}}, true, "<s>", "</s>"};
    check(seeds / name, [&] { static_cast<void>(ChatTemplate(text, name).render(input)); });
  };
  write("turns",
        "{{ bos_token }}{%- for m in messages if m.role != 'system' %}\n  {{- '<' + m['role'] }}\n"
        "{% if loop.first and messages[0]['role'] == 'system' %}{{ messages[0].content | trim }}"
        "{% elif not loop.last %}{% continue %}{% else %}{# c #}{% break %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<assistant>\\n' }}{% endif %}");
  write("values",
        "{% set ns = namespace(n=messages|length - 1) %}{% for m in messages[::-1] %}"
        "{% set ns.n = ns.n - 1 %}{% endfor %}{% set a, b = [1, 2.5], {'k': (none, true)} %}"
        "{% set c %}{% generation %}x{% endgeneration %}{% endset %}{% raw %}{{{% endraw %}"
        "{{ a[0] // 2 ** 1 % 3 ~ b.k|tojson(indent=1) if ns.n is defined and 1 < 2 <= 3 }}"
        "{{ messages|map(attribute='role')|join(',') ~ c.split('x')[-1].strip() ~ -a[1] }}"
        "{{ (messages|selectattr('role', 'equalto', 'user')|list|first).get('content', '') }}"
        "{{ 'a' in 'abc' or 2 not in range(3) }}{{ strftime_now('%d %b %Y')|length }}");
}

void write_config(const path& seed, const std::string& text) {
  fuzz::put(seed, text);
  static const SchemeCatalog schemes = fuzz::catalog();
  check(seed, [&] { (void)load_config(seed.string(), {}, schemes, ConfigUse::kCompare); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const path seeds = argv[1];
  for (const auto& entry : std::filesystem::directory_iterator(argv[2])) {
    if (entry.path().extension() != ".toml") continue;
    write_config(seeds / "config" / entry.path().stem(), read_file(entry.path()));
  }
  const auto bytes = make_bytes_tokenizer();
  const auto chars = make_chars_tokenizer("Grün ist 3 \xE2\x82\xAC\n");
  for (const auto& [name, tokenizer] : {std::pair("bytes", bytes), std::pair("chars", chars)}) {
    const path seed = seeds / "tokenizer" / name;
    fuzz::put(seed, tokenizer->to_json());
    check(seed, [&] { (void)tokenizer_from_json(read_file(seed)); });
  }
  write_bpe(seeds / "tokenizer");
  std::filesystem::create_directories(seeds / "safetensors");
  write_weights(seeds / "safetensors" / "two");
  check(seeds / "safetensors" / "two", [&] { SafetensorsFile(seeds / "safetensors" / "two"); });
  const path tokens = seeds / "tokens" / "bytes", old_tokens = seeds / "tokens" / "version_1";
  std::filesystem::create_directories(seeds / "tokens");
  write_tokens(tokens, *bytes);
  write_old_tokens(old_tokens, tokens);
  for (const path& seed : {tokens, old_tokens}) {
    check(seed, [&] { (void)open_token_file(seed, *bytes); });
  }
  write_documents(seeds / "documents");
  write_manifest(seeds / "manifest" / "two_files");
  write_llmc(seeds / "llmc");
  write_packed(seeds / "packed");
  write_state(seeds / "state");
  const path grid = seeds / "comparison" / "grid";
  write_comparison(grid);
  check(grid, [&] { (void)parse_comparison(parse_json(read_file(grid), "grid"), "grid"); });
  fuzz::put(seeds / "metrics" / "rows", kMetrics);  // read with the run below
  fuzz::put(seeds / "model_config" / "llama", kLlama);
  check("llama", [&] { (void)read_llama_config(parse_json(kLlama, "llama"), "llama"); });
  fuzz::put(seeds / "json" / "llama", kLlama);
  fuzz::put(seeds / "json" / "routing", kRouting);
  write_gguf(seeds / "gguf" / "byte_level", "gpt2");
  write_gguf(seeds / "gguf" / "sentencepiece", "llama");
  write_llama2c(seeds / "llama2c");
  write_chat_templates(seeds / "chat_template");
  const path run = seeds / "run";
  write_run_file(run, '\0', "summary.json", kSummary);
  write_run_file(run, '\1', "metrics.jsonl", kMetrics);
  write_run_file(run, '\2', "env.json", R"({"cpu":"x","threads":2,"train_sha256":"aa"})");
  write_run_file(run, '\3', "routing.json", kRouting);
  write_run_file(run, '\4', "config.toml", "[model]\nlayers = 12\n[residual]\nscheme = \"wav\"\n");
  return 0;
}
