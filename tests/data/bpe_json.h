// A tokenizer.json small enough to know its ids by hand.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/byte_level.h"

namespace wavroute::testing {

inline nlohmann::json byte_level_part(bool use_regex = true) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", use_regex}};
}

inline nlohmann::json added_token(const std::string& content, bool special = true) {
  return {{"id", 0},         {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

// 256 bytes (ids 0 to 255, by value), then what the merges make, from 256 on, then <|endoftext|>.
// A merge is "a b".
inline nlohmann::json byte_level_tokenizer(const std::vector<std::string>& merges) {
  nlohmann::json vocab = nlohmann::json::object();
  for (size_t byte = 0; byte < 256; ++byte) vocab[byte_symbols()[byte]] = byte;
  for (std::string merged : merges) {
    merged.erase(merged.find(' '), 1);
    const size_t next = vocab.size();
    vocab[merged] = next;
  }
  return {{"version", "1.0"},
          {"added_tokens", {added_token("<|endoftext|>")}},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level_part()},
          {"post_processor", nullptr},
          {"decoder", byte_level_part()},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

// <unk>, <s>, 256 bytes, then these tokens and merges; U+2581 stands for a space.
inline nlohmann::json llama2_tokenizer(const std::vector<std::string>& tokens,
                                       const std::vector<std::string>& merges) {
  constexpr const char* kMark = "\xE2\x96\x81";
  nlohmann::json vocab = {{"<unk>", 0}, {"<s>", 1}};
  constexpr const char* kDigits = "0123456789ABCDEF";
  for (unsigned byte = 0; byte < 256; ++byte) {
    vocab[std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">"] = byte + 2;
  }
  for (const std::string& token : tokens) {
    const size_t next = vocab.size();
    vocab[token] = next;
  }
  return {{"version", "1.0"},
          {"added_tokens", {added_token("<unk>"), added_token("<s>")}},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Prepend"}, {"prepend", kMark}},
              {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kMark}}}}}},
          {"pre_tokenizer", nullptr},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single",
             {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
              {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
            {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {{{"type", "Replace"}, {"pattern", {{"String", kMark}}}, {"content", " "}},
              {{"type", "ByteFallback"}},
              {{"type", "Fuse"}},
              {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", vocab},
            {"merges", merges}}}};
}

}  // namespace wavroute::testing
