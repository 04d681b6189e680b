#include "data/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>
#include <unordered_map>

#include "base/printable.h"
#include "base/utf8.h"
#include "data/byte_pair_json.h"
#include "wavroute/error.h"
#include "wavroute/tokenizer.h"

namespace wavroute {
namespace {

using Json = nlohmann::ordered_json;
using Ids = std::unordered_map<std::string_view, int64_t>;

constexpr const char* kSpace = "\xe2\x96\x81";  // U+2581, SentencePiece's space

[[noreturn]] void fail(const std::string& what, const std::string& given,
                       const std::string& where) {
  throw expected(what, given, fmt::format("in the vocabulary of {}", where),
                 "--tokenizer PATH takes the tokenizer of a tokenizer.json instead");
}

Ids ids_of(const Vocabulary& vocabulary, const std::string& where) {
  Ids ids;
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const std::string& text = vocabulary.pieces[id].text;
    if (!is_utf8(text)) fail("entries in UTF-8", fmt::format("others for id {}", id), where);
    if (!ids.emplace(text, static_cast<int64_t>(id)).second) {
      fail("each entry once", printable(text) + " twice", where);
    }
  }
  return ids;
}

Json vocabulary_json(const Vocabulary& vocabulary) {
  Json json = Json::object();
  auto& object = json.get_ref<Json::object_t&>();
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    object.emplace_back(vocabulary.pieces[id].text, id);
  }
  return json;
}

// Tokens that are found in a text before anything else is done to it.
Json added_tokens(const Vocabulary& vocabulary) {
  Json all = Json::array();
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const Piece& piece = vocabulary.pieces[id];
    const bool special = piece.type == PieceType::kControl || piece.type == PieceType::kUnknown;
    if (!special && piece.type != PieceType::kUserDefined) continue;
    all.push_back(added_token<Json>(id, piece.text, special));
  }
  return all;
}

// Tokens around a text; null where there are none.
Json post_processor(const Vocabulary& vocabulary) {
  if (!vocabulary.bos && !vocabulary.eos) return nullptr;
  Json single = Json::array(), pair = Json::array(), special = Json::object();
  const auto add = [&](const std::optional<int64_t>& id, int sequence) {
    if (!id) return;
    const std::string& text = vocabulary.pieces[static_cast<size_t>(*id)].text;
    const Json token = {{"SpecialToken", {{"id", text}, {"type_id", sequence}}}};
    if (sequence == 0) single.push_back(token);
    pair.push_back(token);
    special[text] = {{"id", text}, {"ids", {*id}}, {"tokens", {text}}};
  };
  for (const auto& [name, sequence] : {std::pair("A", 0), std::pair("B", 1)}) {
    add(vocabulary.bos, sequence);
    const Json text = {{"Sequence", {{"id", name}, {"type_id", sequence}}}};
    if (sequence == 0) single.push_back(text);
    pair.push_back(text);
    add(vocabulary.eos, sequence);
  }
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", special}};
}

std::string document(const Vocabulary& vocabulary, const Json& normalizer,
                     const Json& pre_tokenizer, const Json& decoder, const Json& model) {
  const Json json = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", added_tokens(vocabulary)},
                     {"normalizer", normalizer},
                     {"pre_tokenizer", pre_tokenizer},
                     {"post_processor", post_processor(vocabulary)},
                     {"decoder", decoder},
                     {"model", model}};
  return json.dump(1) + "\n";
}

Json byte_level(bool use_regex) { return byte_level_part<Json>(/*trim_offsets=*/true, use_regex); }

Json split_then_bytes(const char* expression) {
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", expression}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", {split, byte_level(false)}}};
}

// How GGUF's words for pre-tokenizers cut a text; null for another word.
Json pre_tokenizer_of(const std::string& word) {
  if (word == "gpt-2") return byte_level(true);
  if (word == "smollm") {
    const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
    return {{"type", "Sequence"}, {"pretokenizers", {digits, byte_level(true)}}};
  }
  if (word == "llama-bpe") {
    return split_then_bytes(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
        "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+");
  }
  if (word == "qwen2") {
    return split_then_bytes(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
        "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+");
  }
  return nullptr;
}

// Where the characters of a text begin, its end included.
std::vector<size_t> boundaries(std::string_view text) {
  std::vector<size_t> result;
  for (size_t at = 0; at < text.size(); at += utf8_step(text, at).length) result.push_back(at);
  result.push_back(text.size());
  return result;
}

// SentencePiece joins the two neighbours whose joint piece has the best score. As ranks: every way
// to make a piece from two, the better score first.
Json merges_from_scores(const Vocabulary& vocabulary, const Ids& ids, const std::string& where) {
  struct Merge {
    double score;
    size_t left_characters, right_characters;  // more come first
    std::string_view left, right;
  };
  const auto joins = [&](std::string_view text) {
    const auto found = ids.find(text);
    if (found == ids.end()) return int64_t{-1};
    const PieceType type = vocabulary.pieces[static_cast<size_t>(found->second)].type;
    const bool is_text =
        type == PieceType::kNormal || type == PieceType::kUserDefined || type == PieceType::kUnused;
    return is_text ? found->second : int64_t{-1};
  };
  constexpr size_t kLongest = 1024;  // bytes [ours]: the time grows with the square
  // [ours]: several times those of the largest vocabularies; a tokenizer.json of as many can still
  // be read.
  constexpr size_t kMostMerges = 2'000'000;
  std::vector<Merge> merges;
  for (const Piece& piece : vocabulary.pieces) {
    if (joins(piece.text) < 0 || piece.text.size() > kLongest) continue;
    const std::vector<size_t> cuts = boundaries(piece.text);
    std::vector<std::tuple<int64_t, int64_t, size_t>> found;  // ids of both, the cut
    for (size_t i = 1; i + 1 < cuts.size(); ++i) {
      const std::string_view text = piece.text;
      const int64_t left = joins(text.substr(0, cuts[i])), right = joins(text.substr(cuts[i]));
      if (left >= 0 && right >= 0) found.emplace_back(left, right, i);
    }
    if (merges.size() + found.size() > kMostMerges) {
      fail(fmt::format("pieces that join in at most {} ways", kMostMerges), "more", where);
    }
    std::ranges::sort(found);
    for (const auto& [left, right, i] : found) {
      const std::string_view text = piece.text;
      merges.push_back(
          {piece.score, i, cuts.size() - 1 - i, text.substr(0, cuts[i]), text.substr(cuts[i])});
    }
  }
  std::ranges::stable_sort(merges, [](const Merge& a, const Merge& b) {
    return std::tie(b.score, b.left_characters, b.right_characters) <
           std::tie(a.score, a.left_characters, a.right_characters);
  });
  Json json = Json::array();
  for (const Merge& merge : merges) json.push_back({merge.left, merge.right});
  return json;
}

// Without merges, a vocabulary of the 256 bytes in their order is our tokenizer of bytes, whatever
// the pre-tokenizer.
bool are_bytes(const Vocabulary& vocabulary, const Json& model) {
  const bool plain = std::ranges::all_of(
      vocabulary.pieces, [](const Piece& piece) { return piece.type == PieceType::kNormal; });
  if (!plain) return false;
  const nlohmann::json ours = nlohmann::json::parse(make_bytes_tokenizer()->to_json());
  return ours["model"]["vocab"] == nlohmann::json::parse(model.at("vocab").dump());
}

}  // namespace

std::string byte_level_json(const Vocabulary& vocabulary, const std::string& where) {
  const Json pre_tokenizer = pre_tokenizer_of(vocabulary.pre_tokenizer);
  if (pre_tokenizer.is_null()) {
    fail("\"gpt-2\", \"smollm\", \"llama-bpe\" or \"qwen2\" as tokenizer.ggml.pre",
         printable(vocabulary.pre_tokenizer), where);
  }
  const Ids ids = ids_of(vocabulary, where);
  Json merges = Json::array();
  for (const std::string& merge : vocabulary.merges) {
    const size_t space = merge.find(' ', 1);
    const std::string left = merge.substr(0, space);
    const std::string right = space == std::string::npos ? "" : merge.substr(space + 1);
    if (!ids.contains(left) || !ids.contains(right) || !ids.contains(left + right)) {
      fail("merges of two entries to a third", printable(merge), where);
    }
    merges.push_back({left, right});
  }
  Json model = byte_pair_model(vocabulary_json(vocabulary), std::move(merges));
  if (vocabulary.pre_tokenizer == "llama-bpe") model["ignore_merges"] = true;
  Json normalizer = nullptr;
  if (vocabulary.pre_tokenizer == "qwen2") normalizer = {{"type", "NFC"}};
  if (vocabulary.merges.empty() && normalizer.is_null() && are_bytes(vocabulary, model)) {
    return make_bytes_tokenizer()->to_json();
  }
  return document(vocabulary, normalizer, pre_tokenizer, byte_level(true), model);
}

std::string sentencepiece_json(const Vocabulary& vocabulary, const std::string& where) {
  const Ids ids = ids_of(vocabulary, where);
  Json model =
      byte_pair_model(vocabulary_json(vocabulary), merges_from_scores(vocabulary, ids, where));
  model["fuse_unk"] = true;
  model["byte_fallback"] = true;
  for (const Piece& piece : vocabulary.pieces) {
    if (piece.type == PieceType::kUnknown) model["unk_token"] = piece.text;
  }
  const Json metaspace = {{"type", "Metaspace"},
                          {"replacement", kSpace},
                          {"prepend_scheme", vocabulary.adds_space ? "first" : "never"},
                          {"split", false}};
  Json decoders = {{{"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}},
                   {{"type", "ByteFallback"}},
                   {{"type", "Fuse"}}};
  if (vocabulary.adds_space) {
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  return document(vocabulary, nullptr, metaspace, {{"type", "Sequence"}, {"decoders", decoders}},
                  model);
}

}  // namespace wavroute
