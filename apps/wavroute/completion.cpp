// wavroute completion: what a shell needs to complete our command lines.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <vector>

#include "base/output.h"
#include "command.h"
#include "config/presets.h"

namespace wavroute::app {
namespace {

// The words that may follow `command`: its subcommands and flags, and where it takes a
// configuration the names of the shipped ones.
std::vector<std::string> words_after(const CLI::App& command) {
  std::vector<std::string> words;
  for (const CLI::App* sub : command.get_subcommands({})) {
    if (!sub->get_group().empty()) words.push_back(sub->get_name());  // the others are internal
  }
  bool takes_config = false;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
    takes_config = takes_config || option->get_name() == "CONFIG";
  }
  if (takes_config) {
    for (const Preset& preset : presets()) words.emplace_back(preset.name);
  }
  return words;
}

// One line of the script's case for `command`, whose words so far are `path`, and those below it.
void add_cases(const CLI::App& command, const std::string& path, std::string& cases) {
  cases += fmt::format("    '{}') words='{}' ;;\n", path, fmt::join(words_after(command), " "));
  for (const CLI::App* sub : command.get_subcommands({})) {
    if (sub->get_group().empty()) continue;
    add_cases(*sub, path.empty() ? sub->get_name() : path + " " + sub->get_name(), cases);
  }
}

// The longest path of subcommands that the line begins with decides; files are always offered.
std::string bash_script(const CLI::App& root) {
  std::string cases;
  add_cases(root, "", cases);
  return "# bash completion of wavroute: source <(wavroute completion bash)\n"
         "# zsh: autoload -U +X bashcompinit && bashcompinit, then the same\n"
         "_wavroute_words() {\n"
         "  local words=''\n"
         "  case $1 in\n" +
         cases +
         "    *) return 1 ;;\n"
         "  esac\n"
         "  printf '%s' \"$words\"\n"
         "}\n"
         "_wavroute() {\n"
         "  local path='' word words\n"
         "  words=$(_wavroute_words '')\n"
         "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
         "    _wavroute_words \"${path:+$path }$word\" >/dev/null || break\n"
         "    path=${path:+$path }$word\n"
         "    words=$(_wavroute_words \"$path\")\n"
         "  done\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
         "}\n"
         "complete -o default -F _wavroute wavroute\n";
}

}  // namespace

void add_completion(CLI::App& root, Action& action) {
  auto* command =
      root.add_subcommand("completion", "Print what a shell needs to complete wavroute's commands");
  command->footer("Examples:\n    source <(wavroute completion bash)");
  auto* bash = command->add_subcommand("bash", "For bash, and for zsh with bashcompinit");
  command->require_subcommand(1);
  bash->callback([&root, &action] {
    action = [&root] {
      print(bash_script(root));
      return 0;
    };
  });
}

}  // namespace wavroute::app
