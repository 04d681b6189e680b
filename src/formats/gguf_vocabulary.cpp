// The vocabulary of a tokenizer.json as the keys of a GGUF file.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "data/tokenizer_kinds.h"
#include "data/vocabulary.h"
#include "formats/export_model.h"
#include "io/json_text.h"
#include "wavroute/error.h"
#include "wavroute/tokenizer.h"

namespace wavroute {
namespace {

using Json = nlohmann::json;

[[noreturn]] void refuse(const std::string& given, const std::string& why) {
  throw expected("a tokenizer of bytes or of byte pairs for --format gguf", given, {}, why);
}

// The parts of a tokenizer.json that cut or change a text, without what makes no difference.
Json cutting(const Json& tokenizer, const char* key) {
  Json part = tokenizer.value(key, Json());
  if (!part.is_object()) return part;
  std::vector<Json*> all = {&part};
  if (part.contains("pretokenizers") && part["pretokenizers"].is_array()) {
    for (Json& item : part["pretokenizers"]) all.push_back(&item);
  }
  for (Json* item : all) {
    if (item->is_object()) item->erase("trim_offsets");
  }
  return part;
}

// GGUF's word for the way in which a byte-level tokenizer cuts a text: that of the one that
// byte_level_json would write for it.
std::string pre_tokenizer_word(const Json& tokenizer, bool has_merges) {
  for (const char* word : {"gpt-2", "smollm", "llama-bpe", "qwen2"}) {
    Vocabulary empty;
    empty.pre_tokenizer = word;
    const Json known = Json::parse(byte_level_json(empty, "here"));
    if (cutting(known, "pre_tokenizer") == cutting(tokenizer, "pre_tokenizer") &&
        cutting(known, "normalizer") == cutting(tokenizer, "normalizer")) {
      return word;
    }
  }
  if (!has_merges) return "gpt-2";  // where nothing is joined, no cut changes anything
  refuse("another pre-tokenizer or normalizer",
         "llama.cpp knows those of GPT-2, SmolLM, Llama 3 and Qwen 2");
}

std::string merge_text(const Json& merge) {
  if (merge.is_string() && merge.get_ref<const std::string&>().find(' ', 1) != std::string::npos) {
    return merge.get<std::string>();
  }
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  refuse("merges of another form", "the tokenizer.json is damaged");
}

// Pieces in the order of their ids, with the types of the added ones.
std::vector<Piece> pieces_of(const Json& tokenizer, int64_t vocab_size) {
  std::vector<Piece> pieces(static_cast<size_t>(vocab_size));
  std::vector<bool> given(pieces.size());
  const auto put = [&](const std::string& text, const Json& id, PieceType type) {
    const auto number = json_integer(id);
    if (!number || *number < 0 || *number >= vocab_size) {
      refuse(fmt::format("an id of {}", json_excerpt(id)), "the model has fewer tokens");
    }
    pieces[static_cast<size_t>(*number)] = {text, 0, type};
    given[static_cast<size_t>(*number)] = true;
  };
  for (const auto& [text, id] : tokenizer.at("model").at("vocab").items()) {
    put(text, id, PieceType::kNormal);
  }
  for (const Json& token : tokenizer.value("added_tokens", Json::array())) {
    put(token.at("content").get<std::string>(), token.at("id"),
        token.value("special", false) ? PieceType::kControl : PieceType::kUserDefined);
  }
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (!given[id]) pieces[id] = {fmt::format("[PAD{}]", id), 0, PieceType::kUnused};
  }
  return pieces;
}

// SentencePiece joins by scores: the rank of the first merge that makes a piece, negative.
void set_scores(std::vector<Piece>& pieces, const std::vector<std::string>& merges) {
  std::map<std::string, double> scores;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    std::string joined = merges[rank];
    joined.erase(joined.find(' '), 1);
    scores.emplace(std::move(joined), -static_cast<double>(rank));
  }
  const double worst = -static_cast<double>(merges.size());
  for (Piece& piece : pieces) {
    if (piece.type != PieceType::kNormal) continue;
    if (piece.text.size() == 6 && piece.text.starts_with("<0x") && piece.text.ends_with(">")) {
      piece.type = PieceType::kByte;
      continue;
    }
    const auto found = scores.find(piece.text);
    piece.score = found == scores.end() ? worst : found->second;
  }
}

// What the post-processor puts before a text, of the tokens that have an id.
bool adds_first(const Json& tokenizer, const std::vector<Piece>& pieces, int64_t id) {
  const Json post = tokenizer.value("post_processor", Json());
  const std::string& text = pieces[static_cast<size_t>(id)].text;
  const auto is_first = [&](const Json& part) {
    return part.is_object() && part.contains("single") && part["single"].is_array() &&
           !part["single"].empty() &&
           part["single"][0].value("SpecialToken", Json::object()).value("id", "") == text;
  };
  if (!post.is_object()) return false;
  const Json parts = post.value("processors", Json::array());
  return is_first(post) || std::ranges::any_of(parts, is_first);
}

void write_pieces(GgufWriter& writer, const std::vector<Piece>& pieces, bool with_scores) {
  std::vector<std::string> texts;
  std::vector<int32_t> types;
  std::vector<float> scores;
  for (const Piece& piece : pieces) {
    texts.push_back(piece.text);
    types.push_back(static_cast<int32_t>(piece.type));
    scores.push_back(static_cast<float>(piece.score));
  }
  writer.add("tokenizer.ggml.tokens", texts);
  writer.add_i32s("tokenizer.ggml.token_type", types);
  if (with_scores) writer.add_f32s("tokenizer.ggml.scores", scores);
}

// Null for one that this version can't read.
std::shared_ptr<const Tokenizer> readable(const ForeignModel& model) {
  try {
    return tokenizer_from_json(model.tokenizer.json);
  } catch (const UserError&) {
    return nullptr;
  }
}

void write_ends(GgufWriter& writer, const ForeignModel& model, const Json& tokenizer,
                const std::vector<Piece>& pieces) {
  const auto id_of = [&](const std::string& text) -> std::optional<int64_t> {
    const auto found = std::ranges::find(pieces, text, &Piece::text);
    if (text.empty() || found == pieces.end()) return std::nullopt;
    return found - pieces.begin();
  };
  std::optional<int64_t> bos = model.bos_id ? model.bos_id : id_of(model.tokenizer.bos);
  std::optional<int64_t> eos = id_of(model.tokenizer.eos);
  if (!model.eos_ids.empty()) eos = model.eos_ids.front();
  const auto fits = [&](const std::optional<int64_t>& id) {
    return id && *id >= 0 && *id < model.vocab_size;
  };
  const auto own = readable(model);
  const bool is_bytes = own && own->name() == "bytes";
  if (!fits(eos) && own && own->end_token()) eos = *own->end_token();
  // A reader that is told nothing takes ids of its own. Our bytes have no end: the byte 0 is in no
  // text. Token 0 of another tokenizer may stand for a text.
  const auto write = [&](const char* key, const std::optional<int64_t>& id) {
    if (fits(id) || is_bytes) writer.add_u32(key, fits(id) ? static_cast<uint32_t>(*id) : 0U);
  };
  write("tokenizer.ggml.bos_token_id", bos);
  write("tokenizer.ggml.eos_token_id", eos);
  writer.add("tokenizer.ggml.add_bos_token", fits(bos) && adds_first(tokenizer, pieces, *bos));
  writer.add("tokenizer.ggml.add_eos_token", false);
}

}  // namespace

void add_vocabulary(GgufWriter& writer, const ForeignModel& model) {
  if (model.tokenizer.json.empty()) {
    refuse("none",
           "a GGUF file holds its tokenizer: put the model's tokenizer.json into its folder");
  }
  const Json tokenizer = parse_json(model.tokenizer.json, "tokenizer.json", kTokenizerLimits);
  try {
    const Json& part = tokenizer.at("model");
    const auto kind = part.at("type").get<std::string>();
    if (kind != "BPE") {
      refuse(
          fmt::format("one of type {}", kind),
          "GGUF has no tokenizer of characters: llama.cpp can't cut a text as this model reads it");
    }
    std::vector<std::string> merges;
    for (const Json& merge : part.at("merges")) merges.push_back(merge_text(merge));
    std::vector<Piece> pieces = pieces_of(tokenizer, model.vocab_size);
    if (part.value("byte_fallback", false)) {
      set_scores(pieces, merges);
      const Json unknown = part.value("unk_token", Json());
      for (Piece& piece : pieces) {
        if (unknown == piece.text) piece.type = PieceType::kUnknown;
      }
      writer.add("tokenizer.ggml.model", std::string("llama"));
      writer.add("tokenizer.ggml.pre", std::string("default"));
      write_pieces(writer, pieces, /*with_scores=*/true);
      const Json cut = tokenizer.value("pre_tokenizer", Json());
      const bool never = cut.is_object() && cut.value("prepend_scheme", "") == "never";
      writer.add("tokenizer.ggml.add_space_prefix", !never);
    } else {
      writer.add("tokenizer.ggml.model", std::string("gpt2"));
      writer.add("tokenizer.ggml.pre", pre_tokenizer_word(tokenizer, !merges.empty()));
      write_pieces(writer, pieces, /*with_scores=*/false);
      writer.add("tokenizer.ggml.merges", merges);
    }
    write_ends(writer, model, tokenizer, pieces);
  } catch (const Json::exception&) {  // a key is missing or of another type
    refuse("a tokenizer.json of another form", "the tokenizer.json is damaged");
  }
  if (!model.tokenizer.chat_template.empty()) {
    writer.add("tokenizer.chat_template", model.tokenizer.chat_template);
  }
}

}  // namespace wavroute
