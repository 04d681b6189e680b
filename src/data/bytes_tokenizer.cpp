#include <array>
#include <nlohmann/json.hpp>

#include "data/byte_level.h"
#include "data/byte_pair_json.h"
#include "data/tokenizer_json.h"
#include "data/tokenizer_kinds.h"

namespace wavroute {
namespace {

constexpr int64_t kBytes = 256;

nlohmann::json vocabulary() {
  nlohmann::json vocab = nlohmann::json::object();
  const auto& symbols = byte_symbols();
  for (size_t byte = 0; byte < symbols.size(); ++byte) vocab[symbols[byte]] = byte;
  return vocab;
}

class BytesTokenizer : public Tokenizer {
 public:
  BytesTokenizer() {
    for (size_t byte = 0; byte < bytes_.size(); ++byte) bytes_[byte] = static_cast<char>(byte);
  }

  [[nodiscard]] std::string_view name() const noexcept override { return "bytes"; }
  [[nodiscard]] int64_t vocab_size() const noexcept override { return kBytes; }

  [[nodiscard]] bool spells_all() const noexcept override { return true; }

  [[nodiscard]] std::string_view token_bytes(uint32_t id) const override {
    if (id >= kBytes) throw_unknown_id(id, kBytes);
    return {&bytes_[id], 1};
  }

  [[nodiscard]] std::vector<uint32_t> encode(std::string_view text, std::string_view /*where*/,
                                             uint64_t /*offset*/) const override {
    std::vector<uint32_t> ids(text.size());
    for (size_t i = 0; i < text.size(); ++i) ids[i] = static_cast<unsigned char>(text[i]);
    return ids;
  }

  // Byte-pair encoding over the 256 byte-level symbols, without a single merge.
  [[nodiscard]] std::string to_json() const override {
    const auto part = byte_level_part<nlohmann::json>(/*trim_offsets=*/false, /*use_regex=*/false);
    return tokenizer_json_text(part, part, byte_pair_model(vocabulary(), nlohmann::json::array()));
  }

 private:
  std::array<char, kBytes> bytes_{};
};

}  // namespace

std::shared_ptr<const Tokenizer> make_bytes_tokenizer() {
  return std::make_shared<BytesTokenizer>();
}

std::shared_ptr<const Tokenizer> bytes_tokenizer_from_json(const nlohmann::json& json) {
  const auto& model = json.at("model");
  if (model.at("type") != "BPE" || !model.at("merges").empty() ||
      json.at("pre_tokenizer").at("type") != "ByteLevel" || model.at("vocab") != vocabulary()) {
    return nullptr;
  }
  // Anything that we don't write, such as added tokens or a normalizer, makes another tokenizer.
  auto bytes = make_bytes_tokenizer();
  return is_of_form(json, nlohmann::json::parse(bytes->to_json())) ? bytes : nullptr;
}

}  // namespace wavroute
