// Strings that end a text that a model writes. Torch-free.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace wavroute {

// Passes on a text that arrives in pieces, up to the first of some strings, without that string.
// What may turn out to be the beginning of one is held back.
class StopText {
 public:
  // Empty strings are ignored.
  explicit StopText(std::vector<std::string> stops);

  // What can be shown once `piece` has arrived; nothing more after a stop.
  [[nodiscard]] std::string feed(std::string_view piece);
  // What is still held back at the end of the text.
  [[nodiscard]] std::string finish();
  [[nodiscard]] bool has_stopped() const { return has_stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool has_stopped_ = false;
};

}  // namespace wavroute
