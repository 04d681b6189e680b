// The parts of a tokenizer.json that we write. Json: nlohmann's json (sorted) or ordered_json.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

namespace wavroute {

// A byte-pair encoding; `merges`: strings "a b" or lists of two.
template <typename Json>
[[nodiscard]] Json byte_pair_model(Json vocab, Json merges) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", false},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

// The pre-tokenizer, and the decoder, of a byte-level vocabulary.
template <typename Json>
[[nodiscard]] Json byte_level_part(bool trim_offsets, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", trim_offsets},
          {"use_regex", use_regex}};
}

// A token that is found in a text before anything else is done to it. id: a number of Json.
template <typename Json, typename Id>
[[nodiscard]] Json added_token(const Id& id, std::string_view content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

}  // namespace wavroute
