#include "data/prepare_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "io/link.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTokenizerName = "tokenizer.json";

}  // namespace

PrepareFolder::PrepareFolder(fs::path root, PrepareState wanted, bool resume)
    : root_(std::move(root)),
      state_(std::move(wanted)),
      resume_(resume),
      folders_(root_),
      lock_(root_) {
  try {
    find();
  } catch (const Error&) {
    lock_.remove_if_made();
    throw;
  }
}

PrepareFolder::~PrepareFolder() { lock_.remove_if_made(); }

void PrepareFolder::find() {
  const std::string place = fmt::format("at {}", root_.string());
  refuse_link(work(), "a folder of a preparation", "remove the link");
  // The manifest is written last: what a kill has left of the work folder beside it is nothing.
  if (is_there(root_ / kManifestFile)) {
    const Manifest manifest = read_manifest(root_);
    if (!resume_) {
      throw expected("a new or an empty folder", "one with prepared text", place,
                     "choose another --out, or remove the folder first");
    }
    std::vector<KnownSource> sources;
    for (size_t i = 0; i < manifest.sources.size(); ++i) {
      const ManifestSource& source = manifest.sources[i];
      sources.push_back({source.path, source.path == "-" ? -1 : source.bytes});
    }
    const bool from_text = state_.tokenizer.empty() && manifest.tokenizer.name == "chars";
    check_wanted(manifest.settings, from_text ? "" : manifest.tokenizer.sha256, sources);
    if (is_there(work())) remove_leftovers();
    complete_ = manifest;
    return;
  }
  if (is_there(work())) {
    if (!resume_) {
      throw expected("a new or an empty folder", "one with a preparation that isn't complete",
                     place, "--resume auto goes on with it; or remove the folder first");
    }
    if (auto begun = read_prepare_state(work())) {
      check_wanted(begun->settings, begun->tokenizer, begun->sources);
      state_ = std::move(*begun);
      resumed_ = true;
      static_cast<void>(remove_stale_temporaries(work()));
      return;
    }
  } else {
    std::vector<std::string> names = list_folder(root_);
    std::erase_if(names, [](const std::string& name) { return name.starts_with(".lock"); });
    if (!names.empty()) {
      throw expected("a new or an empty folder", fmt::format("one with {}", names.front()), place,
                     "choose another --out");
    }
  }
  state_.made_folder = folders_.made();
  make_folders(work());
}

void PrepareFolder::check_wanted(const PrepareSettings& settings, const std::string& tokenizer,
                                 const std::vector<KnownSource>& sources) const {
  std::vector<std::string> others;
  const auto was = to_json(settings), is = to_json(state_.settings);
  for (const auto& [key, value] : was.items()) {
    if (is.at(key) != value) others.push_back("--" + key);
  }
  if (tokenizer != state_.tokenizer) others.emplace_back("--tokenizer");
  if (sources != state_.sources) others.emplace_back("sources (their names and sizes)");
  if (others.empty()) return;
  throw expected("what the preparation was begun with",
                 fmt::format("another {}", fmt::join(others, ", ")),
                 fmt::format("for {}", root_.string()), "give the same, or choose another --out");
}

void PrepareFolder::publish(const Manifest& manifest) {
  std::vector<std::string> names = {kTokenizerName};
  for (const ManifestFile& file : manifest.files) names.push_back(file.name);
  for (const std::string& name : names) {
    // Without it in the work folder an earlier process has moved it.
    if (!is_there(work() / name) && is_there(root_ / name)) continue;
    std::error_code failed;
    fs::rename(work() / name, root_ / name, failed);
    if (failed) throw_system_error("write", root_ / name, failed.value());
  }
  sync_folder(root_);
  constexpr auto kReplace = nlohmann::ordered_json::error_handler_t::replace;
  write_file_atomic(root_ / kManifestFile, to_json(manifest).dump(2, ' ', false, kReplace) + "\n");
  if (resumed_) {
    remove_leftovers();
  } else {
    remove_tree(work());
  }
}

void PrepareFolder::remove_leftovers() const {
  remove_tree(work());
  remove_tree(root_ / ".lock");  // of the process that was killed; nobody works here any more
}

void PrepareFolder::give_up() noexcept {
  if (resumed_ || complete_) return;
  try {
    remove_tree(work());
    lock_.remove_if_made();
  } catch (const Error&) {  // what is left can be resumed or removed
  }
}

}  // namespace wavroute
