// Documents: what a corpus is made of, as they come from a source.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace wavroute {

// The longest document; a longer one is a UserError, so that memory stays within bounds.
inline constexpr uint64_t kMostDocumentBytes = uint64_t{128} << 20;
inline constexpr std::string_view kEndOfText = "<|endoftext|>";

// How a source is cut into documents.
enum class DocumentForm {
  kText,       // at a separator
  kJsonLines,  // one a line: the string under a field of its object
  kParquet,    // one a row: the string in a column
  kArticles,   // at the headings of WikiText: lines " = TITLE = " between blank ones
};

struct DocumentFormat {
  DocumentForm form = DocumentForm::kText;
  std::string separator = std::string(kEndOfText);  // empty: the whole source is one document
  std::string field = "text";
  bool strips = false;  // white space around a document is left out
  uint64_t most_bytes = kMostDocumentBytes;
};

// A document, and its place in its source.
struct SourceDocument {
  std::string_view text;
  std::string_view source;  // named in errors
  uint64_t place = 0;  // a byte of the unpacked source, or a line or row (from 1) of the others
  DocumentForm form = DocumentForm::kText;

  // "at byte 10 of a.txt", "in a.jsonl:3".
  [[nodiscard]] std::string where() const;
};

// Takes a document; false ends the reading.
using OnDocument = std::function<bool(const SourceDocument&)>;

// Cuts text that arrives in pieces. A separator may lie across pieces.
class DocumentCutter {
 public:
  // kParquet has no text to cut.
  DocumentCutter(const DocumentFormat& format, std::string source, OnDocument on_document);

  // False once on_document has given that.
  bool feed(std::string_view piece);
  bool finish();
  // Bytes of JSON lines that were no UTF-8 and became U+FFFD.
  [[nodiscard]] uint64_t replaced_bytes() const noexcept { return replaced_; }

 private:
  bool take(std::string_view part, uint64_t place);
  bool take_line(std::string_view line);
  bool take_article_line(std::string_view line);
  bool give_article();
  void check_length(uint64_t bytes) const;
  [[nodiscard]] std::string field_of(std::string_view line);

  DocumentFormat format_;
  std::string source_;
  OnDocument on_document_;
  std::string separator_;  // of parts: the format's, or a line's end
  std::string pending_;    // what has arrived of the part that isn't complete
  uint64_t begin_ = 0;     // where it begins
  uint64_t line_ = 0;
  uint64_t replaced_ = 0;
  // Of articles: what is known to belong to one, then a blank line and a heading that may begin the
  // next.
  std::string article_;
  uint64_t article_begin_ = 0;
  std::string heading_;  // waits for the blank line behind it
  uint64_t heading_begin_ = 0;
  bool after_blank_ = true;
};

// How many bytes of `text` belong to no character: what is not UTF-8.
[[nodiscard]] uint64_t count_invalid_bytes(std::string_view text) noexcept;

}  // namespace wavroute
