// Cuts a template into tokens, and its text by the rules of white space: trim_blocks and
// lstrip_blocks are on, and one line end at the end of the template is dropped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "chat/work.h"

namespace wavroute::chat {

enum class TokenKind : uint8_t {
  kText,        // between tags
  kPrintBegin,  // {{
  kPrintEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kSign,
  kEnd,  // of the template
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  size_t line = 1;
  std::string text;  // of kText, kName, kString, kSign
  int64_t integer = 0;
  double real = 0.0;
};

// UserError for what is no token; the last token is kEnd.
[[nodiscard]] std::vector<Token> read_tokens(std::string_view source, Work& work);

// As an error shows it: "'endfor'", "the end of the tag".
[[nodiscard]] std::string described(const Token& token);

}  // namespace wavroute::chat
