#include "data/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace wavroute {

void AddedTokens::Trie::add(std::string_view content, uint32_t token) {
  if (content.empty()) return;
  if (is_end_.empty()) is_end_.push_back(kNone);
  begins_[static_cast<unsigned char>(content.front())] = true;
  uint32_t node = 0;
  for (const char byte : content) {
    const uint64_t edge = uint64_t{node} << 8 | static_cast<unsigned char>(byte);
    const auto [place, is_new] = next_.try_emplace(edge, static_cast<uint32_t>(is_end_.size()));
    if (is_new) is_end_.push_back(kNone);
    node = place->second;
  }
  if (is_end_[node] == kNone) is_end_[node] = token;
}

std::optional<AddedTokens::Trie::Match> AddedTokens::Trie::find(std::string_view text,
                                                                size_t at) const {
  if (!begins_[static_cast<unsigned char>(text[at])]) return std::nullopt;
  std::optional<Match> longest;
  uint32_t node = 0;
  for (size_t end = at; end < text.size();) {
    const uint64_t edge = uint64_t{node} << 8 | static_cast<unsigned char>(text[end]);
    const auto next = next_.find(edge);
    if (next == next_.end()) break;
    node = next->second;
    ++end;
    if (is_end_[node] != kNone) longest = Match{is_end_[node], end - at};
  }
  return longest;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer)
    : tokens_(std::move(tokens)) {
  std::ranges::stable_sort(tokens_, std::greater<>(), &AddedToken::special);
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    if (token.normalized) {
      normal_.add(normalizer.apply(token.content, true), i);
    } else {
      plain_.add(token.content, i);
    }
    if (token.special) {
      special_.insert(token.id);
    } else {
      has_plain_text_[token.normalized ? 1 : 0] = true;
    }
  }
}

bool AddedTokens::is_alone(std::string_view text, size_t begin, size_t end) const {
  const char* const first = text.data();
  if (begin > 0 && (characters_.classes_before(first, first + begin) & kWord) != 0) return false;
  return end == text.size() ||
         (characters_.read(first + end, first + text.size()).classes & kWord) == 0;
}

void AddedTokens::split(std::string_view text, bool is_normal, bool with_special,
                        const Visit& visit) const {
  const Trie& trie = is_normal ? normal_ : plain_;
  const bool can_match = !trie.is_empty() && (with_special || has_plain_text_[is_normal ? 1 : 0]);
  const char* const first = text.data();
  size_t done = 0;        // where what was not visited begins
  size_t spaces_end = 0;  // of the last run of spaces that was taken along
  for (size_t at = 0; can_match && at < text.size();) {
    const auto match = trie.find(text, at);
    if (!match) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[match->token];
    size_t begin = at, end = at + match->length;
    at = end;  // not what rstrip takes along: a token of spaces may be found there
    if (token.special && !with_special) continue;
    if (token.single_word && !is_alone(text, begin, end)) continue;
    if (token.lstrip) {
      while (begin > done) {
        const char* const before = first + begin;
        if ((characters_.classes_before(first, before) & kSpace) == 0) break;
        --begin;
        while (begin > done && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
      }
    }
    if (token.rstrip) {
      if (end >= spaces_end) {
        const char* const after = characters_.skip(first + end, first + text.size(), kSpace);
        spaces_end = static_cast<size_t>(after - first);
      }
      end = spaces_end;  // if it lies inside the last run, it is that one's end
    }
    if (done < begin) visit({text.substr(done, begin - done), std::nullopt});
    visit({{}, token.id});
    done = end;
  }
  if (done < text.size()) visit({text.substr(done), std::nullopt});
}

bool AddedTokens::can_be_cut() const {
  return std::ranges::all_of(tokens_, [](const AddedToken& token) {
    const bool reaches_over_spaces =
        token.lstrip || token.rstrip || token.content.find_first_of(" \n") != std::string::npos;
    return token.special || !reaches_over_spaces;
  });
}

std::string AddedTokens::description() const {
  std::string text;
  for (const AddedToken& token : tokens_) {
    text += fmt::format("{} {}:{} {}{}{}{}{};", token.id, token.content.size(), token.content,
                        int{token.single_word}, int{token.lstrip}, int{token.rstrip},
                        int{token.normalized}, int{token.special});
  }
  return text;
}

}  // namespace wavroute
