// The folder that a preparation fills: locked, hidden parts until the end, a manifest last.
#pragma once

#include <filesystem>
#include <optional>

#include "data/manifest.h"
#include "data/prepare_state.h"
#include "io/file.h"

namespace wavroute {

class PrepareFolder {
 public:
  // Makes the folder and its work folder, or finds those of a preparation to go on with; `wanted`
  // is what was asked for. UserError where another process holds the folder, where it holds
  // anything else, and where it isn't to be resumed or was asked for something else.
  PrepareFolder(std::filesystem::path root, PrepareState wanted, bool resume);
  PrepareFolder(const PrepareFolder&) = delete;
  PrepareFolder& operator=(const PrepareFolder&) = delete;
  ~PrepareFolder();

  // The manifest of a folder that is complete already.
  [[nodiscard]] const std::optional<Manifest>& complete() const noexcept { return complete_; }
  [[nodiscard]] const PrepareState& state() const noexcept { return state_; }
  [[nodiscard]] std::filesystem::path work() const { return root_ / kWorkFolder; }

  // Moves the files of `manifest` and the tokenizer to their place, then writes the manifest.
  void publish(const Manifest& manifest);
  // Takes away what a preparation that began here has made; a resumed one keeps it.
  void give_up() noexcept;

 private:
  void find();
  void remove_leftovers() const;
  void check_wanted(const PrepareSettings& settings, const std::string& tokenizer,
                    const std::vector<KnownSource>& sources) const;

  std::filesystem::path root_;
  PrepareState state_;
  bool resume_;
  MadeFolders folders_;
  bool resumed_ = false;
  FileLock lock_;
  std::optional<Manifest> complete_;
};

}  // namespace wavroute
