// The two kinds of errors that a caller can meet.
#pragma once

#include <concepts>
#include <stdexcept>
#include <string>
#include <string_view>

namespace wavroute {

// what(): "expected WHAT, given GIVEN, WHERE" (expectation()), one sentence without a full stop;
// "cannot ACTION PATH: the system's words" where a system call failed.
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

// What an error text quotes: words as they are, a number in its shortest form.
class Quoted {
 public:
  // NOLINTBEGIN(google-explicit-constructor): so that a call reads as a sentence
  Quoted(std::string text);
  Quoted(std::string_view text) : Quoted(std::string(text)) {}
  Quoted(const char* text) : Quoted(std::string(text)) {}
  template <std::integral Number>
  Quoted(Number number) : Quoted(std::to_string(number)) {}
  Quoted(double number);
  // NOLINTEND(google-explicit-constructor)
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// "expected WHAT, given GIVEN, WHERE"; an empty WHERE is left out.
[[nodiscard]] std::string expectation(std::string_view what, const Quoted& given,
                                      std::string_view where = {});
// The UserError that says so: throw expected("a step", word, "in the file").
[[nodiscard]] UserError expected(std::string_view what, const Quoted& given,
                                 std::string_view where = {}, std::string hint = {});

}  // namespace wavroute
