// Names of temporaries whose processes are dead, or on another host.
#pragma once

#include <unistd.h>

#include <functional>
#include <string>

#include "io/child_process.h"
#include "io/file.h"

namespace wavroute::testing {

inline pid_t pid_of_a_dead_process() {
  ChildProcess child(std::function<int()>([] { return 0; }));
  child.wait();
  return child.id();
}

// A temporary_name of a child that has ended.
inline std::string name_of_a_dead_process(const std::string& label) {
  int ends[2] = {};
  if (::pipe(ends) != 0) return {};
  ChildProcess child(std::function<int()>([&] {
    const std::string name = temporary_name(label);
    return ::write(ends[1], name.data(), name.size()) < 0 ? 1 : 0;
  }));
  ::close(ends[1]);
  std::string name(300, '\0');
  const ssize_t size = ::read(ends[0], name.data(), name.size());
  ::close(ends[0]);
  child.wait();
  name.resize(size < 0 ? 0 : static_cast<size_t>(size));
  return name;
}

// The same, but of another host, container or boot: PLACE differs.
inline std::string name_of_another_place(const std::string& label) {
  std::string name = name_of_a_dead_process(label);
  const size_t place = name.find(label) + label.size() + 1;
  name[place] = name[place] == '1' ? '2' : '1';
  return name;
}

}  // namespace wavroute::testing
