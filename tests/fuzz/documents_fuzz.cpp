// Documents of a text: the first byte says which form it has, the second where it is cut into
// pieces.
#include <string>
#include <vector>

#include "base/utf8.h"
#include "data/documents.h"
#include "fuzz.h"

using namespace wavroute;

namespace {

struct Cut {
  bool accepted = false;
  std::vector<std::string> documents;
  bool operator==(const Cut&) const = default;
};

Cut cut(std::string_view text, size_t piece, const DocumentFormat& format) {
  Cut result;
  DocumentCutter cutter(format, "input", [&](const SourceDocument& document) {
    fuzz::require(document.text.size() <= text.size() * 3, "a document is a part of its source");
    result.documents.emplace_back(document.text);
    return true;
  });
  result.accepted = fuzz::accepts([&] {
    for (size_t at = 0; at < text.size(); at += piece) cutter.feed(text.substr(at, piece));
    cutter.finish();
  });
  return result;
}

}  // namespace

WAVROUTE_FUZZ_TARGET(text) {
  if (text.size() < 2) return;
  DocumentFormat format;
  constexpr DocumentForm kForms[] = {DocumentForm::kText, DocumentForm::kJsonLines,
                                     DocumentForm::kArticles};
  format.form = kForms[static_cast<unsigned char>(text[0]) % 3];
  format.separator = "<|end|>";
  format.strips = (static_cast<unsigned char>(text[0]) & 0x40) != 0;
  const size_t piece = 1 + static_cast<unsigned char>(text[1]);
  text.remove_prefix(2);
  const Cut whole = cut(text, text.size() + 1, format), pieces = cut(text, piece, format);
  fuzz::require(whole == pieces, "pieces of any length give the same documents");
  if (format.form == DocumentForm::kJsonLines) {
    for (const std::string& document : whole.documents) {
      fuzz::require(is_utf8(document), "a JSON string is UTF-8");
    }
  }
  if (format.form == DocumentForm::kText && !format.strips) {
    std::string joined;
    for (const std::string& document : whole.documents) {
      joined += (&document == whole.documents.data() ? "" : format.separator) + document;
    }
    fuzz::require(joined == text, "documents and separators are the text");
  }
}
