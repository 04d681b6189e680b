// The two kinds of errors that a caller can meet.
#pragma once

#include <stdexcept>
#include <string>

namespace wavroute {

// what(): "what was expected, what was given, where", one sentence without a full stop.
// hint(): how to fix it; may be empty.
class Error : public std::runtime_error {
 public:
  [[nodiscard]] const std::string& hint() const noexcept { return hint_; }
  // The process exit code that stands for this error: 2 wrong use, 1 failed.
  [[nodiscard]] int exit_code() const noexcept { return exit_code_; }

 protected:
  Error(int exit_code, const std::string& what, std::string hint);

 private:
  int exit_code_;
  std::string hint_;
};

// The caller gave something that can't be used: a missing file, an unknown key, a broken
// checkpoint.
class UserError : public Error {
 public:
  explicit UserError(const std::string& what, std::string hint = {});
};

// The caller did nothing wrong: a full disk, a diverged run, a library that failed.
class Failure : public Error {
 public:
  explicit Failure(const std::string& what, std::string hint = {});
};

}  // namespace wavroute
