#include "chat/template.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "chat/evaluator.h"
#include "chat/parser.h"

namespace wavroute {

struct ChatTemplate::Parsed {
  std::string where;
  chat::Program program;
};

ChatTemplate::ChatTemplate(std::string_view text, std::string where) {
  chat::Work work(where);
  chat::Program program = chat::parse_template(text, work);
  parsed_ = std::make_unique<const Parsed>(Parsed{std::move(where), std::move(program)});
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const ChatInput& input, Time now) const {
  nlohmann::ordered_json variables = {{"messages", nlohmann::ordered_json::array()},
                                      {"tools", nullptr},
                                      {"documents", nullptr},
                                      {"add_generation_prompt", input.add_generation_prompt}};
  for (const ChatMessage& message : input.messages) {
    variables["messages"].push_back({{"role", message.role}, {"content", message.content}});
  }
  if (!input.bos.empty()) variables["bos_token"] = input.bos;
  if (!input.eos.empty()) variables["eos_token"] = input.eos;
  return render(variables, now);
}

std::string ChatTemplate::render(const nlohmann::ordered_json& variables, Time now) const {
  chat::Work work(parsed_->where);
  chat::Evaluator::Variables scope;
  for (const auto& [name, value] : variables.items()) {
    scope.emplace(name, chat::from_json(value, work));
  }
  return chat::Evaluator(std::move(scope), now, work).print(parsed_->program);
}

}  // namespace wavroute
