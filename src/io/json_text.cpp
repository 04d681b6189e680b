#include "io/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/printable.h"
#include "base/utf8.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

using nlohmann::json;

constexpr const char* kHint =
    "the file is damaged or was not written as JSON: repair it or remove it";

// Feeds characters to the library's parser and counts them: its events carry no position.
class CountedCharacters {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountedCharacters(const char* at, size_t* count) : at_(at), count_(count) {}
  reference operator*() const { return *at_; }
  CountedCharacters& operator++() {
    ++at_;
    ++*count_;
    return *this;
  }
  bool operator==(const CountedCharacters& other) const { return at_ == other.at_; }

 private:
  const char* at_;
  size_t* count_;
};

// A text, its name and its place in a larger one: what a message needs.
struct JsonText {
  std::string_view text;
  const std::string& name;
  size_t first_line;

  // `taken`: how many characters had been read.
  [[noreturn]] void fail(const std::string& found, size_t taken, const char* hint = kHint) const {
    // A text that ends too early is at fault in its last line, not in blank lines after it.
    const size_t end = text.find_last_not_of(" \t\r\n") + 1;
    const auto before = text.substr(0, std::min(taken == 0 ? 0 : taken - 1, end));
    const auto line = first_line + static_cast<size_t>(std::ranges::count(before, '\n'));
    throw expected("JSON", found, fmt::format("in {}:{}", name, line), hint);
  }
};

// Builds the value from the library's events, within the limits.
class Builder : public nlohmann::json_sax<json> {
 public:
  Builder(const JsonText& json_text, const JsonLimits& limits, const size_t& taken)
      : json_(json_text), limits_(limits), taken_(taken) {}

  json take() && { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(int64_t value) override { return add(value); }
  bool number_unsigned(uint64_t value) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return false; }  // not in text

  bool number_float(double value, const string_t& text) override {
    // The library silently reads an integer beyond 64 bits as a double.
    if (text.find_first_of(".eE") == std::string::npos) out_of_range(text);
    return add(value);
  }

  bool start_object(size_t /*size*/) override { return open(json::object()); }
  bool start_array(size_t /*size*/) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    auto& members = open_.back()->get_ref<json::object_t&>();
    const auto [place, is_new] = members.try_emplace(name, nullptr);
    if (!is_new) {
      json_.fail(fmt::format("the key {} twice in one object", printable(name)), taken_);
    }
    member_ = &place->second;
    return true;
  }

  bool parse_error(size_t position, const std::string& last,
                   const nlohmann::detail::exception& error) override {
    if (error.id == 406) out_of_range(last);
    if (position > json_.text.size()) json_.fail("its end too early", position);
    if (std::string_view(error.what()).find("UTF-8") != std::string_view::npos) {
      json_.fail("bytes that are no UTF-8", position);
    }
    std::string_view wrong = json_.text.substr(std::max<size_t>(position, 1) - 1, 30);
    wrong = wrong.substr(0, wrong.find('\n'));
    json_.fail(wrong.empty() ? "the end of a line" : printable(wrong), position);
  }

 private:
  [[noreturn]] void out_of_range(const std::string& text) const {
    json_.fail(fmt::format("a number out of range, {}", printable(text)), taken_);
  }

  // Stores a value where it belongs and returns its address.
  json* place(json value) {
    if (++values_ > limits_.values) {
      json_.fail(fmt::format("more than {} values", limits_.values), taken_);
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& items = open_.back()->get_ref<json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    *member_ = std::move(value);
    return member_;
  }

  bool add(json value) {
    place(std::move(value));
    return true;
  }

  bool open(json empty) {
    if (std::ssize(open_) >= limits_.depth) {
      json_.fail(fmt::format("lists and objects more than {} deep in each other", limits_.depth),
                 taken_);
    }
    open_.push_back(place(std::move(empty)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  const JsonText& json_;
  const JsonLimits& limits_;
  const size_t& taken_;
  json root_;
  std::vector<json*> open_;  // lists and objects that have not ended, from the outside in
  json* member_ = nullptr;   // where the value of the last key belongs
  size_t values_ = 0;
};

[[noreturn]] void throw_too_large(const std::string& name, uint64_t bytes, size_t limit) {
  throw expected(fmt::format("at most {} bytes of JSON", limit), bytes, fmt::format("in {}", name),
                 "no file of this kind is that large");
}

}  // namespace

json parse_json_line(std::string_view text, const std::string& name, size_t first_line,
                     const JsonLimits& limits) {
  if (text.size() > limits.bytes) throw_too_large(name, text.size(), limits.bytes);
  const JsonText json_text{text, name, first_line};
  // The library takes a zero byte for the end of its input.
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos) {
    json_text.fail("a zero byte", zero + 1);
  }
  size_t taken = 0;
  Builder builder(json_text, limits, taken);
  const CountedCharacters begin(text.data(), &taken), end(text.data() + text.size(), nullptr);
  json::sax_parse(begin, end, &builder);
  return std::move(builder).take();
}

json parse_json(std::string_view text, const std::string& name, const JsonLimits& limits) {
  return parse_json_line(text, name, 1, limits);
}

json read_json(const std::filesystem::path& path, const JsonLimits& limits) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  if (!error && bytes > limits.bytes) throw_too_large(path.string(), bytes, limits.bytes);
  return parse_json(read_file(path, limits.bytes), path.string(), limits);
}

std::optional<int64_t> json_integer(const json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX})
    return std::nullopt;
  return value.get<int64_t>();
}

std::string json_excerpt(const json& value) {
  constexpr size_t kLongest = 60;
  // A list or an object may be as large as its file: only its kind is shown.
  if (value.is_structured()) return value.is_array() ? "a list" : "an object";
  std::string text = terminal_text(value.dump(-1, ' ', false, json::error_handler_t::replace));
  if (text.size() > kLongest) text = text.substr(0, utf8_boundary(text, kLongest)) + "...";
  return text;
}

void check_format(const json& object, int64_t newest, std::string_view what,
                  const std::string& where) {
  if (!object.is_object()) return;
  const auto format = object.find("format");
  if (format == object.end()) return;
  if (format->is_number() && format->get<double>() <= static_cast<double>(newest)) return;
  throw expected(fmt::format("{} of format {} at most", what, newest),
                 fmt::format("format {}", format->is_number() ? format->dump() : "of another kind"),
                 fmt::format("in {}", where), "a newer version of wavroute wrote it: use that one");
}

}  // namespace wavroute
