// Loaded into a program with LD_PRELOAD, lets calls on some files fail as a broken device or a
// full table would: WAVROUTE_FAIL="CALL:ERRNO:PART", where CALL is open, read, flock or unlinkat,
// ERRNO a number, and PART a part of the path; "open:5:step_12/model" is EIO for that file. Several
// are separated by commas.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

// The errno with which the call on this path fails; 0: it doesn't.
int failure(std::string_view call, std::string_view path) {
  const char* wanted = std::getenv("WAVROUTE_FAIL");
  for (std::string_view rest = wanted == nullptr ? "" : wanted; !rest.empty();) {
    const std::string_view rule = rest.substr(0, rest.find(','));
    rest.remove_prefix(rule.size() < rest.size() ? rule.size() + 1 : rest.size());
    const size_t first = rule.find(':'), second = rule.find(':', first + 1);
    if (second == rule.npos || rule.substr(0, first) != call) continue;
    if (path.find(rule.substr(second + 1)) == path.npos) continue;
    return std::atoi(std::string(rule.substr(first + 1, second - first - 1)).c_str());
  }
  return 0;
}

std::string path_of(int file) {
  const std::string link = "/proc/self/fd/" + std::to_string(file);
  std::string path(4096, '\0');
  const ssize_t size = ::readlink(link.c_str(), path.data(), path.size());
  path.resize(size < 0 ? 0 : static_cast<size_t>(size));
  return path;
}

template <class Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

bool fails(const char* call, std::string_view path) {
  const int error = failure(call, path);
  if (error != 0) errno = error;
  return error != 0;
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  if (fails("open", path)) return -1;
  return next<int (*)(const char*, int, ...)>("open")(path, flags, mode);
}

ssize_t read(int file, void* into, size_t size) {
  const char* wanted = std::getenv("WAVROUTE_FAIL");
  if (wanted != nullptr && fails("read", path_of(file))) return -1;
  return next<ssize_t (*)(int, void*, size_t)>("read")(file, into, size);
}

int unlinkat(int folder, const char* name, int flags) {
  const char* wanted = std::getenv("WAVROUTE_FAIL");
  if (wanted != nullptr && fails("unlinkat", path_of(folder) + "/" + name)) return -1;
  return next<int (*)(int, const char*, int)>("unlinkat")(folder, name, flags);
}

int flock(int file, int operation) {
  if (fails("flock", path_of(file))) return -1;
  return next<int (*)(int, int)>("flock")(file, operation);
}

}  // extern "C"
