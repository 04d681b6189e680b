#include "data/bpe_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/printable.h"
#include "data/tokenizer_json.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using nlohmann::json;

using Ids = std::unordered_map<std::string_view, uint32_t>;

constexpr size_t kMostAround = 1024;                 // tokens that a post-processor adds
constexpr size_t kMostAddedBytes = size_t{4} << 20;  // of all added tokens: a trie holds them

// The most that a file of so many tokens may use: holes cost memory.
int64_t most_ids(size_t tokens) { return 2 * static_cast<int64_t>(tokens) + 65536; }

void refuse(std::string_view what, const Quoted& given, const std::string& where) {
  throw expected(what, given, fmt::format("in {}", where));
}

void read_tokens(const json& model, BpeVocabulary& vocabulary, const std::string& where) {
  const auto vocab = model.find("vocab");
  if (vocab == model.end() || !vocab->is_object()) {
    refuse("an object as vocab", vocab == model.end() ? "none" : json_excerpt(*vocab), where);
  }
  auto& tokens = vocabulary.tokens;
  const int64_t end = most_ids(vocab->size());
  for (const auto& [token, value] : vocab->items()) {
    const auto id = json_integer(value);
    if (!id || *id < 0 || *id >= end) {
      refuse(fmt::format("an id from 0 to {} for the token {}", end - 1, printable(token)),
             json_excerpt(value), where);
    }
    const auto place = static_cast<size_t>(*id);
    if (place >= tokens.size()) tokens.resize(place + 1);
    if (tokens[place]) {
      refuse(fmt::format("one token with the id {}", *id),
             fmt::format("{} and {}", printable(*tokens[place]), printable(token)), where);
    }
    tokens[place] = token;
  }
}

Ids ids_of(const BpeVocabulary& vocabulary) {
  Ids ids;
  ids.reserve(vocabulary.tokens.size());
  for (uint32_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.tokens[id]) ids.emplace(*vocabulary.tokens[id], id);
  }
  return ids;
}

// "a b", as older files have it, or ["a", "b"].
std::pair<std::string_view, std::string_view> sides_of(const json& merge,
                                                       const std::string& where) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
  }
  if (merge.is_string()) {
    const std::string_view text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  refuse("two tokens as a merge", json_excerpt(merge), where);
  return {};
}

void read_merges(const json& model, BpeVocabulary& vocabulary, const std::string& where) {
  const Ids ids = ids_of(vocabulary);
  const auto id_of = [&](std::string_view token) {
    const auto found = ids.find(token);
    if (found == ids.end()) {
      refuse("merges of tokens of the vocabulary, into such", printable(token), where);
    }
    return found->second;
  };
  const json& merges = list_of(model, "merges", where);
  vocabulary.merges.reserve(merges.size());
  std::string merged;
  for (const json& merge : merges) {
    if (merge.is_string() && merge.get_ref<const std::string&>().starts_with("#version")) continue;
    const auto [left, right] = sides_of(merge, where);
    merged.assign(left).append(right);
    vocabulary.merges.push_back({id_of(left), id_of(right), id_of(merged)});
  }
}

// A key whose value must be null, empty or 0.
void refuse_use(const json& model, const char* key, const std::string& where) {
  const auto value = model.find(key);
  if (value == model.end() || value->is_null() || *value == json("") || *value == 0.0) return;
  refuse(fmt::format("a byte-pair encoding without {}", key), json_excerpt(*value), where);
}

void read_ids(const json& ids, int64_t vocab_size, std::vector<uint32_t>& out,
              const std::string& where) {
  for (const json& value : ids) {
    const auto id = json_integer(value);
    if (!id || *id < 0 || *id >= vocab_size) {
      refuse(fmt::format("ids below {} in the post-processor", vocab_size), json_excerpt(value),
             where);
    }
    out.push_back(static_cast<uint32_t>(*id));
    if (out.size() > kMostAround) {
      refuse(fmt::format("at most {} tokens around a prompt", kMostAround), "more", where);
    }
  }
}

PromptFrame read_template(const json& json, int64_t vocab_size, const std::string& where) {
  PromptFrame frame;
  int texts = 0;
  for (const auto& piece : list_of(json, "single", where)) {
    const auto special = piece.find("SpecialToken");
    const auto text = piece.find("Sequence");
    if (text != piece.end() && text->is_object() && text_of(*text, "id", where) == "A") {
      ++texts;
    } else if (special != piece.end() && special->is_object()) {
      const std::string name = text_of(*special, "id", where);
      const auto known = json.find("special_tokens");
      if (known == json.end() || !known->is_object() || !known->contains(name) ||
          !(*known)[name].is_object()) {
        refuse("the special tokens of the post-processor's template", printable(name), where);
      }
      read_ids(list_of((*known)[name], "ids", where), vocab_size,
               texts == 0 ? frame.before : frame.after, where);
    } else {
      refuse("SpecialToken or Sequence A in the post-processor's template", json_excerpt(piece),
             where);
    }
  }
  if (texts != 1) refuse("one text in the post-processor's template", texts, where);
  return frame;
}

PromptFrame read_processor(const json& json, int64_t vocab_size, const std::string& where,
                           int depth) {
  constexpr int kDeepest = 8;
  const std::string type = type_of(json, "post-processor", where);
  if (type == "ByteLevel") return {};  // changes offsets alone
  if (type == "TemplateProcessing") return read_template(json, vocab_size, where);
  if (type != "Sequence" || depth >= kDeepest) {
    refuse_kind("post-processor", "ByteLevel, TemplateProcessing or Sequence", type, where);
  }
  PromptFrame frame;
  for (const auto& part : list_of(json, "processors", where)) {
    const PromptFrame outer = read_processor(part, vocab_size, where, depth + 1);
    frame.before.insert(frame.before.begin(), outer.before.begin(), outer.before.end());
    frame.after.insert(frame.after.end(), outer.after.begin(), outer.after.end());
    if (frame.before.size() + frame.after.size() > kMostAround) {
      refuse(fmt::format("at most {} tokens around a prompt", kMostAround), "more", where);
    }
  }
  return frame;
}

}  // namespace

BpeVocabulary read_bpe_vocabulary(const json& json, const std::string& where) {
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    refuse_use(json, key, where);
  }
  BpeVocabulary vocabulary;
  vocabulary.fuse_unknown = flag_of(json, "fuse_unk", false, where);
  vocabulary.byte_fallback = flag_of(json, "byte_fallback", false, where);
  vocabulary.ignore_merges = flag_of(json, "ignore_merges", false, where);
  read_tokens(json, vocabulary, where);
  read_merges(json, vocabulary, where);
  if (const auto unknown = json.find("unk_token"); unknown != json.end() && !unknown->is_null()) {
    const std::string token = text_of(json, "unk_token", where);
    const Ids ids = ids_of(vocabulary);
    const auto found = ids.find(token);
    if (found == ids.end()) refuse("an unk_token of the vocabulary", printable(token), where);
    vocabulary.unknown = found->second;
  }
  return vocabulary;
}

// A token that the model's vocabulary lacks gets the next id behind all others, or behind the
// model's number of tokens, as `tokenizers` counts; the id in the file is not looked at.
std::vector<AddedToken> read_added_tokens(const json& json, BpeVocabulary& vocabulary,
                                          const std::string& where) {
  std::vector<AddedToken> added;
  if (json.is_null()) return added;
  if (!json.is_array()) refuse("a list as added_tokens", json_excerpt(json), where);
  std::unordered_map<std::string, uint32_t> ids;
  for (uint32_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.tokens[id]) ids.emplace(*vocabulary.tokens[id], id);
  }
  const auto model_size = static_cast<uint32_t>(ids.size());
  std::optional<uint32_t> most;  // of the ids of added tokens
  std::unordered_set<uint32_t> is_added;
  size_t bytes = 0;  // of contents
  for (const auto& item : json) {
    if (!item.is_object()) refuse("an object as an added token", json_excerpt(item), where);
    AddedToken token;
    token.content = text_of(item, "content", where);
    token.single_word = flag_of(item, "single_word", false, where);
    token.lstrip = flag_of(item, "lstrip", false, where);
    token.rstrip = flag_of(item, "rstrip", false, where);
    token.special = flag_of(item, "special", false, where);
    token.normalized = flag_of(item, "normalized", !token.special, where);
    if (token.content.size() > AddedTokens::kLongest) {
      refuse(fmt::format("added tokens of at most {} bytes", AddedTokens::kLongest),
             token.content.size(), where);
    }
    bytes += token.content.size();
    if (bytes > kMostAddedBytes) {
      refuse(fmt::format("added tokens of at most {} bytes in all", kMostAddedBytes), "more",
             where);
    }
    if (token.content.empty()) continue;
    const auto next = most && *most >= model_size ? *most + 1 : model_size;
    const auto [place, is_new] = ids.try_emplace(token.content, next);
    token.id = place->second;
    if (is_new) {
      if (token.id >= vocabulary.tokens.size()) vocabulary.tokens.resize(token.id + 1);
      if (vocabulary.tokens[token.id]) {
        refuse(fmt::format("one token with the id {}", token.id),
               fmt::format("{} and {}", printable(*vocabulary.tokens[token.id]),
                           printable(token.content)),
               where);
      }
      vocabulary.tokens[token.id] = token.content;
    }
    most = std::max(most.value_or(0), token.id);
    if (!is_added.insert(token.id).second) {
      refuse("each added token once", printable(token.content) + " twice", where);
    }
    added.push_back(std::move(token));
  }
  return added;
}

PromptFrame read_post_processor(const json& json, int64_t vocab_size, const std::string& where) {
  return json.is_null() ? PromptFrame{} : read_processor(json, vocab_size, where, 0);
}

std::optional<std::string> marked_end(const json& added_tokens, const std::string& where) {
  if (!added_tokens.is_array()) return std::nullopt;
  for (const auto& item : added_tokens) {
    if (item.is_object() && flag_of(item, kEndOfDocument, false, where)) {
      return text_of(item, "content", where);
    }
  }
  return std::nullopt;
}

}  // namespace wavroute
