// OpenMP's threads, which libtorch's own loops and products use, spin for milliseconds while they
// wait: where another program wants the core, a training step takes several times as long. How long
// they spin is read from the environment when the library is loaded, before main(). So the program
// restarts itself with a setting, unless the user has made one: before any library is initialised,
// which is most of the cost of a start. A file of its own, because a shared library can't do this.
#include <alloca.h>
#include <unistd.h>

#include <climits>
#include <cstring>
#include <initializer_list>

#include "base/affinity.h"

namespace wavroute::app {
namespace {

// Some tens of microseconds: the next loop of a training step has usually begun by then
// (docs/performance.md).
constexpr char kSetting[] = "GOMP_SPINCOUNT=1000";
constexpr char kMark[] = "WAVROUTE_SPINCOUNT=1000";  // the setting is ours

bool sets(const char* entry, const char* name) {
  const size_t length = std::strlen(name);
  return std::strncmp(entry, name, length) == 0 && entry[length] == '=';
}

// Called before the constructors of all libraries, with what main() gets.
void start_again(int, char** argv, char** environment) {
  keep_given_processors();  // the library may bind this thread to one of them
  size_t count = 0;
  for (; environment[count] != nullptr; ++count) {
    for (const char* name : {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "WAVROUTE_SPINCOUNT"}) {
      if (sets(environment[count], name)) return;
    }
  }
  // Memory can't be allocated yet.
  auto** const extended = static_cast<char**>(alloca((count + 3) * sizeof(char*)));
  std::memcpy(extended, environment, count * sizeof(char*));
  extended[count] = const_cast<char*>(kSetting);
  extended[count + 1] = const_cast<char*>(kMark);
  extended[count + 2] = nullptr;
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length > 0) {
    path[length] = '\0';
    execve(path, argv, extended);
  }
  execve("/proc/self/exe", argv, extended);
  // Failed: the threads wait as the library does by default.
}

__attribute__((section(".preinit_array"),
               used)) void (*const before_libraries)(int, char**, char**) = start_again;

}  // namespace

}  // namespace wavroute::app
