// wavroute chat: a conversation with a model, in the form of its chat template.
#include "chat/template.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/output.h"
#include "base/terminal.h"
#include "base/utf8.h"
#include "command.h"
#include "common.h"
#include "config/end_tokens.h"
#include "continuing.h"
#include "formats/foreign_model.h"
#include "io/file.h"
#include "model/generate.h"
#include "train/process.h"
#include "validators.h"
#include "wavroute/error.h"

namespace wavroute::app {
namespace {

namespace fs = std::filesystem;

struct ChatArguments {
  ModelArguments model;
  std::string system;
  fs::path template_file;  // empty: the model's own
  int64_t tokens = 512;
  Sampling sampling;
  std::vector<std::string> stops;
  bool json = false;
  bool show_prompt = false;
};

// A template, and the texts that it is given besides a conversation.
struct ModelTemplate {
  ChatTemplate text;
  std::string bos, eos;
};

ModelTemplate read_template(const fs::path& folder, const fs::path& file) {
  constexpr uint64_t kMostBytes = uint64_t{1} << 20;
  const ForeignTokenizer tokenizer = read_hf_tokenizer(folder);
  if (!file.empty()) {
    return {ChatTemplate(read_file(file, kMostBytes), file.string()), tokenizer.bos, tokenizer.eos};
  }
  if (tokenizer.chat_template.empty()) {
    throw expected("a chat template", "none", "in " + folder.string(),
                   "--template FILE gives one; wavroute generate continues a text without");
  }
  return {ChatTemplate(tokenizer.chat_template, "the chat template in " + folder.string()),
          tokenizer.bos, tokenizer.eos};
}

// Those that the model's files name, else the one that ends texts of its tokenizer.
std::vector<uint32_t> ends_of(const LoadedModel& loaded) {
  std::vector<uint32_t> ends = read_end_tokens(loaded.folder);
  const auto end = loaded.tokenizer->end_token();
  if (ends.empty() && end) ends.push_back(*end);
  return ends;
}

class Conversation {
 public:
  Conversation(const LoadedModel& loaded, const ChatArguments& arguments)
      : loaded_(loaded),
        arguments_(arguments),
        template_(read_template(loaded.folder, arguments.template_file)),
        ends_(ends_of(loaded)),
        continuation_(*loaded.model, loaded.program_or_null()) {
    reset();
  }

  void reset() {
    messages_.clear();
    if (!arguments_.system.empty()) messages_.push_back({"system", arguments_.system});
  }

  void add(const char* role, const std::string& content) { messages_.push_back({role, content}); }

  // What the model is given; the answer of the assistant begins at its end, if that comes next.
  [[nodiscard]] std::string prompt() const {
    const bool is_answered = !messages_.empty() && messages_.back().role == "assistant";
    return template_.text.render({messages_, !is_answered, template_.bos, template_.eos});
  }

  // Writes the answer to what was added last, and adds it. False: a signal came meanwhile.
  bool answer();

 private:
  void show(const std::string& piece) const {
    if (arguments_.json || piece.empty()) return;
    print(piece);
    flush();
  }
  void print_json(const std::string& text, const std::vector<uint32_t>& ids, size_t prompt_tokens,
                  const GenerationResult& result) const;

  const LoadedModel& loaded_;
  const ChatArguments& arguments_;
  ModelTemplate template_;
  std::vector<uint32_t> ends_;
  Continuation continuation_;
  std::vector<ChatMessage> messages_;
  bool is_context_noted_ = false, is_trouble_noted_ = false;
};

bool Conversation::answer() {
  const StopSignal stop;  // from here on: reading a long turn takes a while, too
  const std::vector<uint32_t> ids = loaded_.tokenizer->encode_marked(prompt(), "the conversation");
  if (ids.empty()) throw expected("a chat template that prints the conversation", "an empty text");
  check_cache(loaded_, 1, std::ssize(ids), arguments_.tokens);
  is_context_noted_ =
      is_context_noted_ || note_context(loaded_, std::ssize(ids) + arguments_.tokens);
  Writer writer(loaded_, arguments_.stops);
  bool has_ended = false;
  const GenerationResult result =
      continuation_.run(ids, arguments_.tokens, arguments_.sampling, [&](size_t, uint32_t token) {
        has_ended = std::ranges::find(ends_, token) != ends_.end();
        if (!has_ended) show(writer.feed(token));
        has_ended = has_ended || writer.has_stopped();
        return !has_ended && !StopSignal::requested();
      });
  show(writer.finish());
  add("assistant", writer.text());
  if (arguments_.json) {
    print_json(writer.text(), result.ids[0], ids.size(), result);
  } else {
    print("\n");
  }
  flush();
  if (!std::exchange(is_trouble_noted_, true)) note_trouble(result.trouble);
  if (!has_ended && !StopSignal::requested()) {
    note(fmt::format("wavroute: the answer is cut off after {} tokens (-n)", arguments_.tokens));
  }
  return !StopSignal::requested();
}

void Conversation::print_json(const std::string& text, const std::vector<uint32_t>& ids,
                              size_t prompt_tokens, const GenerationResult& result) const {
  const auto later = static_cast<double>(ids.size()) - 1.0;
  const nlohmann::ordered_json object = {
      {"role", "assistant"},
      {"content", text},
      {"ids", ids},
      {"prompt_tokens", prompt_tokens},
      {"reused_tokens", continuation_.reused()},
      {"prefill_seconds", result.prefill_seconds},
      {"tokens_per_s", later > 0.0 ? later / result.decode_seconds : 0.0}};
  print_line(object);
}

// The turns on standard input, a line each; empty lines are none.
class Turns {
 public:
  // `has_mark`: whether somebody types them, who is shown where.
  explicit Turns(bool has_mark) : has_mark_(has_mark) {}

  // Nothing at the end.
  std::optional<std::string> next() {
    std::string line;
    while (true) {
      if (has_mark_) {
        print("> ");
        flush();
      }
      if (!std::getline(std::cin, line)) break;
      ++number_;
      if (line.ends_with('\r')) line.pop_back();
      if (!is_utf8(line)) {
        throw expected("UTF-8", "other bytes", fmt::format("in line {} of the turns", number_));
      }
      if (!line.empty()) return line;
    }
    if (has_mark_) print("\n");
    return std::nullopt;
  }

 private:
  bool has_mark_;
  size_t number_ = 0;
};

int show_prompt(Conversation& conversation, Turns& turns) {
  bool is_user = true;
  while (const auto turn = turns.next()) {
    conversation.add(is_user ? "user" : "assistant", *turn);
    is_user = !is_user;
  }
  print(conversation.prompt());
  return 0;
}

int run(const ChatArguments& arguments) {
  check(arguments.sampling);
  if (arguments.json && arguments.show_prompt) {
    throw expected("--json or --show-prompt", "both");
  }
  const LoadedModel loaded = load(arguments.model);
  Conversation conversation(loaded, arguments);
  const bool is_typed = is_terminal(STDIN_FILENO) && is_terminal(STDOUT_FILENO);
  Turns turns(is_typed);
  if (arguments.show_prompt) return show_prompt(conversation, turns);
  if (is_typed) {
    note("Ctrl-C ends an answer, /reset begins a new conversation, /exit or Ctrl-D leaves.");
  }
  bool is_first = true;
  while (const auto turn = turns.next()) {
    if (is_typed && *turn == "/exit") break;
    if (is_typed && *turn == "/reset") {
      conversation.reset();
      continue;
    }
    if (!is_typed && !arguments.json && !is_first) print("\n");  // an empty line between answers
    is_first = false;
    conversation.add("user", *turn);
    const bool goes_on = conversation.answer() || (is_typed && StopSignal::first() == SIGINT);
    if (!goes_on) break;
  }
  return 0;
}

}  // namespace

void add_chat(CLI::App& root, Action& action) {
  auto* command = root.add_subcommand(
      "chat", "Talk with a model: a turn is a line, typed or from standard input");
  auto arguments = std::make_shared<ChatArguments>();
  add_model_arguments(*command, arguments->model, "auto", /*takes_q8=*/true);
  command->add_option("--system", arguments->system, "What the model is told before all turns");
  command->add_option("--template", arguments->template_file,
                      "A chat template (Jinja) instead of the model's own");
  command->add_option("-n,--tokens", arguments->tokens, "Tokens of an answer, at most")
      ->check(integer_from(1))
      ->capture_default_str();
  add_sampling(*command, arguments->sampling);
  command->add_option("--stop", arguments->stops, "End an answer before this string; repeatable")
      ->allow_extra_args(false);
  command->add_flag("--json", arguments->json, "One JSON object for each answer");
  command->add_flag("--show-prompt", arguments->show_prompt,
                    "Print what the template makes of the lines, of user and assistant in turn, "
                    "and answer nothing");
  command->footer(
      "Examples:\n"
      "    wavroute chat model --system \"Be brief.\"\n"
      "    echo \"Hello\" | wavroute chat model --precision q8_0 --json\n"
      "    echo \"Hello\" | wavroute chat model --show-prompt       what the template makes of it");
  command->callback([&action, arguments] { action = [arguments] { return run(*arguments); }; });
}

}  // namespace wavroute::app
