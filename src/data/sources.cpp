#include "data/sources.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>
#include <utility>

#include "data/known_formats.h"
#include "data/nearest_file.h"
#include "data/parquet.h"
#include "data/source_bytes.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr std::array<std::string_view, 2> kPacked = {".gz", ".zst"};

// Where `path` leads, links followed as far as it is there.
fs::path resolved(const fs::path& path) {
  std::error_code failed;
  fs::path whole = fs::weakly_canonical(fs::absolute(path, failed), failed);
  if (failed) whole = path.lexically_normal();
  return whole.has_filename() ? whole : whole.parent_path();  // "corpus/"
}

// A source that is the output, or lies in it.
void refuse_output(const std::string& path, const fs::path& output) {
  if (output.empty()) return;
  const fs::path whole = resolved(path), made = resolved(output);
  const auto [end, _] = std::ranges::mismatch(made, whole);
  if (end != made.end()) return;
  throw expected("sources outside of what is made of them", path,
                 fmt::format("for --out {}", output.string()), "choose another --out");
}

// All files below a folder but those of `output`, sorted by path; links to files count, links to
// folders are not followed.
std::vector<std::string> files_below(const fs::path& folder, const fs::path& output) {
  const fs::path made = output.empty() ? output : resolved(output);
  std::vector<std::string> files;
  std::error_code failed;
  for (fs::recursive_directory_iterator entry(folder, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    const std::string name = entry->path().filename().string();
    std::error_code gone;
    if (name.starts_with(".") ||
        (name == made.filename() && fs::equivalent(entry->path(), made, gone))) {
      if (entry->is_directory(gone)) entry.disable_recursion_pending();
    } else if (entry->is_regular_file(gone)) {
      files.push_back(entry->path().string());
    }
  }
  if (failed) throw_system_error("list", folder, failed.value());
  std::ranges::sort(files);
  if (files.empty()) {
    throw expected("files with text", "none", fmt::format("in the folder {}", folder.string()));
  }
  return files;
}

// The first bytes of a regular file.
std::string first_bytes(const std::string& path) {
  constexpr size_t kBytes = 4096;
  SourceBytes bytes(path);
  std::string begin(kBytes, '\0');
  size_t filled = 0;
  while (filled < kBytes) {
    const size_t count = bytes.read(std::span(begin).subspan(filled));
    if (count == 0) break;
    filled += count;
  }
  begin.resize(filled);
  return begin;
}

void refuse_binary(const std::string& path) {
  const std::string begin = first_bytes(path);
  const auto known = known_format(begin), refused = known ? known : not_text(begin);
  if (!refused) return;
  throw expected(
      "text, JSON lines or Parquet", refused->what, fmt::format("in {}", path),
      known ? known->hint : "data prepare reads text; name its files one by one. " + refused->hint);
}

SourceFile source_file(const std::string& path, const SourceOptions& options) {
  SourceFile source;
  source.path = path;
  DocumentFormat& format = source.format;
  format.form = form_of(path);
  if (path == "-") format.form = options.field ? DocumentForm::kJsonLines : DocumentForm::kText;
  format.separator = options.separator;
  format.field = options.field.value_or(format.field);
  format.most_bytes = options.most_document_bytes;
  if (path != "-" && format.form != DocumentForm::kParquet) refuse_binary(path);
  return source;
}

}  // namespace

std::string_view to_string(SplitName split) noexcept {
  constexpr std::array<std::string_view, kSplits> kNames = {"train", "valid", "test"};
  return kNames[static_cast<size_t>(split)];
}

DocumentForm form_of(std::string_view name) {
  for (const std::string_view suffix : kPacked) {
    if (name.ends_with(suffix)) name.remove_suffix(suffix.size());
  }
  for (const std::string_view suffix : {".jsonl", ".ndjson", ".json"}) {
    if (name.ends_with(suffix)) return DocumentForm::kJsonLines;
  }
  return name.ends_with(".parquet") ? DocumentForm::kParquet : DocumentForm::kText;
}

std::vector<SourceFile> list_sources(const std::vector<std::string>& given,
                                     const SourceOptions& options) {
  std::vector<SourceFile> sources;
  bool has_input = false;
  for (const std::string& path : given) {
    std::error_code ignored;
    if (path != "-") refuse_output(path, options.output);
    if (path == "-") {
      if (std::exchange(has_input, true)) {
        throw expected("standard input once", "'-' twice", {}, "name it once among the sources");
      }
      sources.push_back(source_file(path, options));
    } else if (fs::is_directory(path, ignored)) {
      for (const std::string& file : files_below(path, options.output)) {
        sources.push_back(source_file(file, options));
        sources.back().is_listed = true;
      }
    } else if (!fs::exists(path, ignored)) {
      throw expected("a file, a folder or '-' to read text from",
                     fmt::format("no {}", path.empty() ? "''" : path), {}, nearest_beside(path));
    } else {
      sources.push_back(source_file(path, options));
    }
  }
  return sources;
}

SourceReader::SourceReader(const SourceFile& source, std::string python, StopCheck is_stopped)
    : source_(source), python_(std::move(python)), is_stopped_(std::move(is_stopped)) {}

uint64_t SourceReader::stored_bytes() const { return bytes_ ? bytes_->stored_bytes() : 0; }

bool SourceReader::give_cuts(const SourceDocument& whole, const Visit& visit) const {
  source_.check_whole(whole.text);
  size_t begin = 0;
  for (size_t split = 0; split <= source_.cuts.size(); ++split) {
    const size_t end = split < source_.cuts.size() ? source_.cuts[split] : whole.text.size();
    const SourceDocument part = {whole.text.substr(begin, end - begin), whole.source, begin,
                                 DocumentForm::kText};
    if (!visit(part, static_cast<SplitName>(split))) return false;
    begin = end;
  }
  return true;
}

std::optional<SourceSummary> SourceReader::read(const Visit& visit) {
  try {
    return read_all(visit);
  } catch (const ReadingStopped&) {
    bytes_ = nullptr;
    return std::nullopt;
  }
}

std::optional<SourceSummary> SourceReader::read_all(const Visit& visit) {
  bool stopped = false;
  const auto take = [&](const SourceDocument& document) {
    const bool goes_on =
        source_.cuts.empty() ? visit(document, source_.split) : give_cuts(document, visit);
    stopped = stopped || !goes_on;
    return goes_on;
  };
  if (source_.format.form == DocumentForm::kParquet) {
    read_parquet(source_.path, source_.format, python_, is_stopped_, take);
    if (stopped) return std::nullopt;
    return SourceSummary{sha256_file(source_.path), fs::file_size(source_.path), 0};
  }
  SourceBytes bytes(source_.path, is_stopped_);
  bytes_ = &bytes;
  DocumentCutter cutter(source_.format, source_.path == "-" ? "standard input" : source_.path,
                        take);
  std::string piece(kPieceBytes, '\0');
  while (!stopped) {
    const size_t count = bytes.read(piece);
    if (count == 0) break;
    cutter.feed(std::string_view(piece).substr(0, count));
  }
  if (!stopped) cutter.finish();
  bytes_ = nullptr;
  if (stopped) return std::nullopt;
  return SourceSummary{bytes.sha256(), bytes.stored_bytes(), cutter.replaced_bytes()};
}

}  // namespace wavroute
