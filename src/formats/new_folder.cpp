#include "formats/new_folder.h"

#include "base/printable.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLabel = "folder";

fs::path parent_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

}  // namespace

NewFolder::NewFolder(const fs::path& path, const std::string& flag)
    : path_(path.lexically_normal()) {
  if (!path_.has_filename()) path_ = path_.parent_path();  // "runs/a/"
  const std::string where = flag.empty() ? "" : "for " + flag;
  if (path_.empty()) throw expected("a folder to make", "''", where);
  std::error_code ignored;
  if (fs::exists(fs::symlink_status(path_, ignored))) {
    throw expected("a folder that isn't there yet", printable(path.string()), where,
                   "give another " + (flag.empty() ? "folder" : flag) + ", or remove it");
  }
  const fs::path parent = parent_of(path_);
  parents_.emplace(parent);
  remove_stale_temporaries(parent, kLabel);
  temporary_ = parent / temporary_name(kLabel);
  make_folders(temporary_);
}

NewFolder::~NewFolder() {
  if (temporary_.empty()) return;
  try {
    remove_tree(temporary_);
  } catch (const std::exception&) {  // the next one of this place removes it
  }
}

void NewFolder::commit() {
  sync_folder(temporary_);
  std::error_code error;
  fs::rename(temporary_, path_, error);
  if (error) throw_system_error("rename to", path_, error.value());
  temporary_.clear();
  sync_folder(parent_of(path_));
}

}  // namespace wavroute
