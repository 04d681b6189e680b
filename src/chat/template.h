// Chat templates: the text that a model was trained on, made of a conversation. A template is a
// program in Jinja, and this renders the subset of it that chat templates are written in
// (docs/models.md), as `transformers` does, or refuses by name what lies outside. Templates come
// with models and are not trusted: depth, size and time are bounded (work.h). Torch-free.
#pragma once

#include <chrono>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wavroute {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// What a template is given of a conversation, as `transformers` gives it.
struct ChatInput {
  std::vector<ChatMessage> messages = {};
  bool add_generation_prompt = true;  // ends where the next answer begins
  std::string bos = {}, eos = {};     // texts of the tokens; empty: the tokenizer has none
};

class ChatTemplate {
 public:
  using Time = std::chrono::system_clock::time_point;

  // UserError for a syntax error or a construct outside the subset; `where` names the template in
  // errors, which give the line besides: "in line 3 of WHERE".
  ChatTemplate(std::string_view text, std::string where);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // UserError where the template refuses the conversation (raise_exception), where Jinja would
  // stop with an error, and for what is outside the subset.
  [[nodiscard]] std::string render(const ChatInput& input,
                                   Time now = std::chrono::system_clock::now()) const;
  // The same for variables of any kind: an object.
  [[nodiscard]] std::string render(const nlohmann::ordered_json& variables, Time now) const;

 private:
  struct Parsed;
  std::unique_ptr<const Parsed> parsed_;
};

}  // namespace wavroute
