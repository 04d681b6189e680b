#include "data/documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/nearest.h"
#include "base/numbers.h"
#include "base/printable.h"
#include "base/utf8.h"
#include "io/json_text.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr std::string_view kWhite = " \t\r\n\v\f";

std::string_view stripped(std::string_view text) {
  const size_t first = text.find_first_not_of(kWhite);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kWhite) - first + 1);
}

// Where the stripped text begins in the whole; one of white space alone is nowhere.
uint64_t begin_of(std::string_view text, std::string_view whole) {
  return text.empty() ? 0 : static_cast<uint64_t>(text.data() - whole.data());
}

// Where the first byte beyond ASCII is, from `at` on.
size_t skip_ascii(std::string_view text, size_t at) noexcept {
  constexpr uint64_t kHighBits = 0x8080808080808080;
  for (uint64_t word = 0; at + sizeof word <= text.size(); at += sizeof word) {
    std::memcpy(&word, text.data() + at, sizeof word);
    if ((word & kHighBits) != 0) break;
  }
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
  return at;
}

std::string with_replacements(std::string_view text) {
  std::string valid;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    valid += step.state == Utf8State::kComplete ? text.substr(at, step.length) : kReplacement;
    at += step.length;
  }
  return valid;
}

// "=" signs around a title, one on each side.
bool is_heading(std::string_view line) {
  const std::string_view text = stripped(line);
  return text.size() > 4 && text.starts_with("= ") && text.ends_with(" =") && text[2] != '=' &&
         text[text.size() - 3] != '=';
}

}  // namespace

std::string SourceDocument::where() const {
  return form == DocumentForm::kText || form == DocumentForm::kArticles
             ? fmt::format("at byte {} of {}", place, source)
             : fmt::format("in {}:{}", source, place);
}

uint64_t count_invalid_bytes(std::string_view text) noexcept {
  uint64_t count = 0;
  for (size_t at = skip_ascii(text, 0); at < text.size(); at = skip_ascii(text, at)) {
    const Utf8Step step = utf8_step(text, at);
    if (step.state != Utf8State::kComplete) count += step.length;
    at += step.length;
  }
  return count;
}

DocumentCutter::DocumentCutter(const DocumentFormat& format, std::string source,
                               OnDocument on_document)
    : format_(format), source_(std::move(source)), on_document_(std::move(on_document)) {
  separator_ = format_.form == DocumentForm::kText ? format_.separator : "\n";
}

void DocumentCutter::check_length(uint64_t bytes) const {
  if (bytes <= format_.most_bytes) return;
  const bool is_text = format_.form == DocumentForm::kText;
  throw expected(
      fmt::format("documents of at most {}", format_bytes(static_cast<double>(format_.most_bytes))),
      "a longer one",
      is_text ? fmt::format("at byte {} of {}", begin_, source_)
              : fmt::format("in {}:{}", source_, line_ + 1),
      is_text ? fmt::format("it ends where \"{}\" stands; --separator names another text between "
                            "documents, for instance '\\n\\n'",
                            format_.separator)
              : "leave this document out, or cut it into several");
}

bool DocumentCutter::feed(std::string_view piece) {
  size_t searched = pending_.size();
  pending_ += piece;
  if (separator_.empty()) {
    check_length(pending_.size());
    return true;
  }
  size_t begin = 0;
  for (;;) {
    const size_t overlap = separator_.size() - 1;
    const size_t from = std::max(begin, searched > overlap ? searched - overlap : 0);
    const size_t end = pending_.find(separator_, from);
    if (end == std::string::npos) break;
    if (!take(std::string_view(pending_).substr(begin, end - begin), begin_ + begin)) return false;
    begin = searched = end + separator_.size();
  }
  pending_.erase(0, begin);
  begin_ += begin;
  check_length(pending_.size());
  return true;
}

bool DocumentCutter::finish() {
  // Behind the last line's end there is no further line.
  const bool is_lines = format_.form != DocumentForm::kText;
  const std::string rest = std::exchange(pending_, {});
  if ((!is_lines || !rest.empty()) && !take(rest, begin_)) return false;
  if (format_.form != DocumentForm::kArticles) return true;
  article_ += std::exchange(heading_, {});
  return give_article();
}

bool DocumentCutter::take(std::string_view part, uint64_t place) {
  switch (format_.form) {
    case DocumentForm::kJsonLines:
      return take_line(part);
    case DocumentForm::kArticles:
      if (article_.empty() && heading_.empty()) article_begin_ = place;
      if (!take_article_line(part)) return false;
      ++line_;
      return true;
    default:
      break;
  }
  check_length(part.size());
  const std::string_view text = format_.strips ? stripped(part) : part;
  return on_document_({text, source_, place + begin_of(text, part), format_.form});
}

bool DocumentCutter::take_line(std::string_view line) {
  check_length(line.size());
  ++line_;
  if (stripped(line).empty()) return true;
  const std::string text = field_of(line);
  return on_document_(
      {format_.strips ? stripped(text) : text, source_, line_, DocumentForm::kJsonLines});
}

std::string DocumentCutter::field_of(std::string_view line) {
  const JsonLimits limits = {.bytes = format_.most_bytes};
  std::string valid;
  if (const uint64_t invalid = count_invalid_bytes(line); invalid > 0) {
    valid = with_replacements(line);
    replaced_ += invalid;
    line = valid;
  }
  nlohmann::json object = parse_json_line(line, source_, line_, limits);
  const std::string where = fmt::format("in {}:{}", source_, line_);
  if (!object.is_object()) {
    throw expected("one JSON object a line", json_excerpt(object), where,
                   "a JSON list becomes lines by: jq -c '.[]' FILE");
  }
  const auto found = object.find(format_.field);
  if (found == object.end()) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : object.items()) {
      if (value.is_string()) keys.push_back(key);
    }
    throw expected(fmt::format("a field \"{}\" with the text", format_.field), "an object without",
                   where,
                   keys.empty() ? "--field names the field that holds the text"
                                : fmt::format("--field names it; here there is {}",
                                              printable(nearest(format_.field, keys))));
  }
  if (!found->is_string()) {
    throw expected(fmt::format("a string as \"{}\"", format_.field), json_excerpt(*found), where,
                   "--field names the field that holds the text");
  }
  return std::move(found->get_ref<std::string&>());
}

bool DocumentCutter::take_article_line(std::string_view line) {
  const bool is_blank = stripped(line).empty();
  if (!heading_.empty()) {
    // A heading with a blank line on either side begins an article; else it was a line like others.
    if (is_blank && !article_.empty() && !give_article()) return false;
    if (article_.empty()) article_begin_ = heading_begin_;
    article_ += std::exchange(heading_, {});
  }
  const uint64_t here = article_begin_ + article_.size();
  if (after_blank_ && is_heading(line)) {
    heading_begin_ = here;
    heading_ = std::string(line) + "\n";
  } else {
    article_ += line;
    article_ += '\n';
    check_length(article_.size());
  }
  after_blank_ = is_blank;
  return true;
}

bool DocumentCutter::give_article() {
  const std::string text = std::exchange(article_, {});
  const std::string_view kept = format_.strips ? stripped(text) : std::string_view(text);
  return on_document_(
      {kept, source_, article_begin_ + begin_of(kept, text), DocumentForm::kArticles});
}

}  // namespace wavroute
