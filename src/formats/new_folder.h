// A folder that appears whole, or not at all.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "io/file.h"

namespace wavroute {

class NewFolder {
 public:
  // UserError where something is at `path` already. `flag`: what a user names it by, if anything.
  explicit NewFolder(const std::filesystem::path& path, const std::string& flag = "--out");
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  ~NewFolder();  // without commit(), nothing is left

  // Where to write until then.
  [[nodiscard]] const std::filesystem::path& at() const { return temporary_; }
  // The last part of the path.
  [[nodiscard]] std::string name() const { return path_.filename().string(); }
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  std::optional<MadeFolders> parents_;
};

}  // namespace wavroute
