// wavroute manual: the pages of man(1), written from the commands' own help when the project is
// built, so that both say the same.
#include <fmt/format.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/build_info.h"
#include "command.h"
#include "io/file.h"

namespace wavroute::app {
namespace {

namespace fs = std::filesystem;

// Text as roff prints it: a backslash, and a dot or quote that begins a line, are no commands.
std::string plain(std::string_view text) {
  std::string escaped;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool begins = i == 0 || text[i - 1] == '\n';
    if (begins && (text[i] == '.' || text[i] == '\'')) escaped += "\\&";
    if (text[i] == '\\') {
      escaped += "\\e";
    } else if (text[i] == '-') {
      escaped += "\\-";
    } else {
      escaped += text[i];
    }
  }
  return escaped;
}

std::string bold(std::string_view text) { return "\\fB" + plain(text) + "\\fR"; }

std::vector<const CLI::App*> shown_commands(const CLI::App& command) {
  std::vector<const CLI::App*> shown;
  for (const CLI::App* sub : command.get_subcommands({})) {
    if (!sub->get_group().empty()) shown.push_back(sub);  // the others are internal
  }
  return shown;
}

class Page {
 public:
  // `name`: "wavroute-data"
  Page(const CLI::App& root, const std::string& name, const CLI::App& command)
      : format_(std::dynamic_pointer_cast<const CLI::Formatter>(root.get_formatter())) {
    const BuildInfo build = build_info();
    text_ = fmt::format(".TH \"{}\" 1 \"\" \"wavroute {}\" \"User Commands\"\n", plain(name),
                        plain(build.version));
    section("NAME", plain(name) + " \\- " + plain(command.get_description()));
  }

  void section(std::string_view title, const std::string& content) {
    if (!content.empty()) text_ += fmt::format(".SH {}\n{}\n", title, content);
  }

  // How `command` is called and its options; `words`: "wavroute data".
  void describe(const CLI::App& command, const std::string& words) {
    section("SYNOPSIS", usage(command, words));
    section("OPTIONS", options(command));
  }

  // The same for a command below the page's own.
  void describe_below(const CLI::App& command, const std::string& words) {
    text_ += fmt::format(".SS \"{}\"\n{}\n.PP\n{}\n{}\n", plain(words), usage(command, words),
                         plain(command.get_description()), options(command));
    if (!command.get_footer().empty()) text_ += preformatted(command.get_footer()) + "\n";
    for (const CLI::App* sub : shown_commands(command)) {
      describe_below(*sub, words + " " + sub->get_name());
    }
  }

  // As it stands, line by line.
  [[nodiscard]] static std::string preformatted(const std::string& text) {
    return ".PP\n.nf\n" + plain(text) + "\n.fi";
  }

  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  [[nodiscard]] std::string usage(const CLI::App& command, const std::string& words) const {
    const std::string line = format_->make_usage(&command, words);
    const size_t rest = line.find(words) + words.size();
    return bold(words) + plain(line.substr(rest, line.find('\n', rest) - rest));
  }

  [[nodiscard]] std::string options(const CLI::App& command) const {
    std::string list;
    for (const CLI::Option* option : command.get_options()) {
      if (option->get_group().empty()) continue;
      const bool positional = !option->nonpositional();
      list += fmt::format("{}.TP\n{}{}\n{}", list.empty() ? "" : "\n",
                          bold(format_->make_option_name(option, positional)),
                          plain(format_->make_option_opts(option)),
                          plain(format_->make_option_desc(option)));
    }
    return list;
  }

  std::shared_ptr<const CLI::Formatter> format_;
  std::string text_;
};

std::string page_of(const CLI::App& root, const CLI::App& command) {
  const bool is_root = &root == &command;
  const std::string name = is_root ? "wavroute" : "wavroute-" + command.get_name();
  const std::string words = is_root ? "wavroute" : "wavroute " + command.get_name();
  Page page(root, name, command);
  page.describe(command, words);
  std::string below;
  for (const CLI::App* sub : shown_commands(command)) {
    if (is_root) {
      below += fmt::format("{}.TP\n\\fBwavroute\\-{}\\fR(1)\n{}", below.empty() ? "" : "\n",
                           plain(sub->get_name()), plain(sub->get_description()));
    }
  }
  page.section("COMMANDS", below);
  if (!is_root && !shown_commands(command).empty()) {
    page.section("COMMANDS", "Each has options of its own.");
    for (const CLI::App* sub : shown_commands(command)) {
      page.describe_below(*sub, words + " " + sub->get_name());
    }
  }
  if (!command.get_footer().empty()) {
    page.section("EXAMPLES", Page::preformatted(command.get_footer()));
  }
  page.section("EXIT STATUS",
               "0: done. 1: failed, through no fault of the caller. 2: wrong use; the message says "
               "of what.");
  if (!is_root) page.section("SEE ALSO", "\\fBwavroute\\fR(1)");
  return page.text();
}

void write_pages(const CLI::App& root, const fs::path& folder) {
  fs::create_directories(folder);
  write_file_atomic(folder / "wavroute.1", page_of(root, root));
  for (const CLI::App* sub : shown_commands(root)) {
    write_file_atomic(folder / ("wavroute-" + sub->get_name() + ".1"), page_of(root, *sub));
  }
}

}  // namespace

void add_manual(CLI::App& root, Action& action) {
  auto* command = root.add_subcommand("manual", "Write the pages of man(1) into a folder");
  command->group("");  // for the build alone
  auto folder = std::make_shared<fs::path>();
  command->add_option("FOLDER", *folder)->required();
  command->callback([&root, &action, folder] {
    action = [&root, folder] {
      write_pages(root, *folder);
      return 0;
    };
  });
}

}  // namespace wavroute::app
