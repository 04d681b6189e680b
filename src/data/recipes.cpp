#include "data/recipes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <system_error>
#include <utility>

#include "base/nearest.h"
#include "base/numbers.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const Recipe& recipe, const std::string& given, const std::string& where) {
  throw expected(fmt::format("the files of {}", recipe.name), given, where,
                 fmt::format("--recipe {} takes {}", recipe.name, recipe.files));
}

std::string file_name(const std::string& path) { return fs::path(path).filename().string(); }

// Leaves out the files that the recipe doesn't know, as a folder has them beside its corpus;
// refuses one that the user named.
void leave_out_others(const Recipe& recipe, std::vector<SourceFile>& sources,
                      const std::function<bool(SourceFile&)>& is_known) {
  std::erase_if(sources, [&](SourceFile& source) {
    if (is_known(source)) return false;
    if (source.is_listed) return true;
    refuse(recipe, source.path == "-" ? "standard input" : "another file",
           source.path == "-" ? "" : fmt::format("at {}", source.path));
  });
}

// The split that a part of a file's name stands for.
struct Part {
  std::string_view text;
  SplitName split;
};

// Keeps the files whose names have one of `parts` and end in one of `endings`, and sets their
// splits.
void take_splits(const Recipe& recipe, std::vector<SourceFile>& sources,
                 const std::vector<Part>& parts, const std::vector<std::string_view>& endings) {
  leave_out_others(recipe, sources, [&](SourceFile& source) {
    const std::string plain = file_name(source.path);
    std::string_view name = plain;
    for (const std::string_view packed : {".gz", ".zst"}) {
      if (name.ends_with(packed)) name.remove_suffix(packed.size());
    }
    const auto ends = [&](std::string_view ending) { return name.ends_with(ending); };
    if (std::ranges::none_of(endings, ends)) return false;
    for (const Part& part : parts) {
      if (name.find(part.text) == std::string_view::npos) continue;
      source.split = part.split;
      return true;
    }
    return false;
  });
  const auto has_train = [](const SourceFile& s) { return s.split == SplitName::kTrain; };
  if (std::ranges::any_of(sources, has_train)) return;
  refuse(recipe, "none with text to train on", "among the sources");
}

using CheckText = std::function<void(std::string_view text, const std::string& path)>;

// One file of a known length: 90, 5 and 5 hundredths of it, in order.
void take_hundredths(const Recipe& recipe, std::vector<SourceFile>& sources,
                     const CheckText& check) {
  // Alone it may have any name.
  if (sources.size() > 1) {
    leave_out_others(recipe, sources, [&](const SourceFile& source) {
      const std::string name = file_name(source.path);
      return name == recipe.name || name.starts_with(std::string(recipe.name) + ".");
    });
  }
  if (sources.size() != 1) refuse(recipe, fmt::format("{} files", sources.size()), "as sources");
  SourceFile& source = sources.front();
  source.format.form = DocumentForm::kText;
  source.format.separator.clear();
  source.cuts = {recipe.bytes / 100 * 90, recipe.bytes / 100 * 95};
  source.check_whole = [&recipe, check, path = source.path](std::string_view text) {
    if (text.size() != recipe.bytes) {
      refuse(recipe, fmt::format("{} bytes", format_count(static_cast<double>(text.size()))),
             fmt::format("in {}, of {}", path, format_count(static_cast<double>(recipe.bytes))));
    }
    check(text, path);
  };
}

void take_text8(const Recipe& recipe, std::vector<SourceFile>& sources) {
  take_hundredths(recipe, sources, [&recipe](std::string_view text, const std::string& path) {
    const auto other =
        std::ranges::find_if(text, [](char c) { return c != ' ' && (c < 'a' || c > 'z'); });
    if (other == text.end()) return;
    refuse(recipe, fmt::format("the byte 0x{:02X}", static_cast<unsigned char>(*other)),
           fmt::format("at byte {} of {}: its symbols are a to z and the space",
                       other - text.begin(), path));
  });
}

void take_enwik8(const Recipe& recipe, std::vector<SourceFile>& sources) {
  take_hundredths(recipe, sources, [&recipe](std::string_view text, const std::string& path) {
    if (text.starts_with("<mediawiki")) return;
    refuse(recipe, "another text", fmt::format("in {}: it begins with <mediawiki", path));
  });
}

void take_tinystories(const Recipe& recipe, std::vector<SourceFile>& sources) {
  take_splits(recipe, sources, {{"train", SplitName::kTrain}, {"valid", SplitName::kValid}},
              {".txt"});
  for (SourceFile& source : sources) {
    source.format.form = DocumentForm::kText;
    source.format.strips = true;  // line ends around <|endoftext|>
  }
  // Without the valid file, documents of the train file are taken.
  const auto is_valid = [](const SourceFile& s) { return s.split == SplitName::kValid; };
  if (std::ranges::any_of(sources, is_valid)) return;
  for (SourceFile& source : sources) source.split.reset();
}

void take_wikitext(const Recipe& recipe, std::vector<SourceFile>& sources) {
  take_splits(recipe, sources,
              {{"wiki.train", SplitName::kTrain},
               {"wiki.valid", SplitName::kValid},
               {"wiki.test", SplitName::kTest}},
              {".tokens", ".raw"});
  for (SourceFile& source : sources) {
    source.format.form = DocumentForm::kArticles;
    source.format.strips = true;
  }
}

// JSON lines or Parquet, as web crawls come.
void take_rows(const Recipe& recipe, std::vector<SourceFile>& sources) {
  leave_out_others(recipe, sources, [](const SourceFile& source) {
    return source.path == "-" || form_of(source.path) != DocumentForm::kText;
  });
  if (sources.empty()) refuse(recipe, "no .jsonl and no .parquet file", "among the sources");
  for (SourceFile& source : sources) {
    if (source.path == "-") source.format.form = DocumentForm::kJsonLines;
  }
}

}  // namespace

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> all = {
      {"tinystories",
       "TinyStories-train.txt and TinyStories-valid.txt (or TinyStoriesV2-GPT4-*.txt)", "bytes"},
      {"text8", "the file text8: 100,000,000 characters, a to z and the space", "chars",
       100'000'000},
      {"enwik8", "the file enwik8: the first 100,000,000 bytes of a Wikipedia", "bytes",
       100'000'000},
      {"wikitext-103", "wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens (or .raw)",
       "bytes"},
      {"openwebtext", "files of JSON lines (.jsonl, packed or not) or Parquet (.parquet)", "bytes"},
      {"fineweb", "files of JSON lines (.jsonl, packed or not) or Parquet (.parquet)", "bytes"}};
  return all;
}

const Recipe& find_recipe(std::string_view name) {
  std::vector<std::string> names;
  for (const Recipe& recipe : recipes()) {
    if (recipe.name == name) return recipe;
    names.emplace_back(recipe.name);
  }
  throw expected(
      fmt::format("a recipe ({})", fmt::join(names, ", ")), fmt::format("'{}'", name), {},
      fmt::format("the nearest is {}; without --recipe any text will do", nearest(name, names)));
}

std::vector<SourceFile> recipe_sources(const Recipe& recipe, const std::vector<std::string>& given,
                                       const SourceOptions& options) {
  std::vector<SourceFile> sources = list_sources(given, options);
  if (recipe.name == "tinystories") take_tinystories(recipe, sources);
  if (recipe.name == "text8") take_text8(recipe, sources);
  if (recipe.name == "enwik8") take_enwik8(recipe, sources);
  if (recipe.name == "wikitext-103") take_wikitext(recipe, sources);
  if (recipe.name == "openwebtext" || recipe.name == "fineweb") take_rows(recipe, sources);
  return sources;
}

}  // namespace wavroute
