// Small corpora, prepared with bounds so small that everything happens that large ones need.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "data/prepare.h"
#include "data/prepared.h"
#include "tests/data/scratch.h"

namespace wavroute {

class PrepareTest : public ScratchTest {
 protected:
  PrepareTest() {
    options_.out = folder_ / "out";
    options_.seed = 3;
    options_.valid = 0.3;
    options_.buffer_bytes = 300;
    options_.shard_bytes = 10000;  // of which a document takes 128 beside its text
    options_.state_bytes = 500;
    options_.progress_bytes = 1;
  }

  Manifest prepare_here() {
    const auto manifest = prepare(options_, [](const auto&) { return true; });
    EXPECT_TRUE(manifest.has_value());
    return manifest.value_or(Manifest{});
  }
  std::string error_here() {
    return testing::message_of<UserError>(
        [&] { (void)prepare(options_, [](const auto&) { return true; }); });
  }

  // The documents of a split as the files hold them, which a separator after each makes visible.
  std::string text_of_split(SplitName split) const {
    const PreparedText text = open_prepared(options_.out);
    const auto has = [&](const ManifestFile& file) { return file.split == split; };
    if (std::ranges::none_of(text.manifest.files, has)) return {};
    const TokenView tokens = open_prepared_split(text, split).tokens;
    std::string all;
    for (const int64_t id : all_tokens(tokens)) {
      all += text.tokenizer->token_bytes(static_cast<uint32_t>(id));
    }
    return all;
  }

  // Every file of the folder, by name.
  std::map<std::string, std::string> files() const {
    std::map<std::string, std::string> found;
    for (const std::string& name : testing::names_in(options_.out)) {
      found[name] = testing::get(options_.out / name);
    }
    return found;
  }

  PrepareOptions options_;
};

// Documents of different lengths: "<0>", "<1 abababab...>". Each ends where the next begins.
inline std::vector<std::string> numbered(int count) {
  std::vector<std::string> documents;
  for (int i = 0; i < count; ++i) {
    std::string text = "<" + std::to_string(i);
    for (int k = 0; k < (i * 7) % 23; ++k) text += k % 2 == 0 ? 'a' : 'b';
    documents.push_back(text + ">");
  }
  return documents;
}

inline std::string joined(const std::vector<std::string>& documents,
                          const std::string& separator = "<|endoftext|>") {
  std::string text;
  for (const std::string& document : documents) {
    text += (text.empty() ? "" : separator) + document;
  }
  return text;
}

// What stands between "<" and ">", in order.
inline std::vector<std::string> parts_of(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('>', at);
    parts.push_back(text.substr(at, end - at + 1));
    if (end == std::string::npos) break;
    at = end + 1;
  }
  return parts;
}

inline std::vector<std::string> sorted(std::vector<std::string> texts) {
  std::ranges::sort(texts);
  return texts;
}

}  // namespace wavroute
