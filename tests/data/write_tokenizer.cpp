// write_tokenizer TYPE TEXT OUT: writes the tokenizer.json of a text, for tests in Python.
#include <cstdio>
#include <exception>
#include <span>
#include <string_view>

#include "io/file.h"
#include "wavroute/tokenizer.h"

int main(int count, char** values) try {
  const std::span arguments(values, static_cast<size_t>(count));
  if (count != 4) {
    std::fputs("usage: write_tokenizer bytes|chars TEXT OUT\n", stderr);
    return 2;
  }
  const auto tokenizer = std::string_view(arguments[1]) == "bytes"
                             ? wavroute::make_bytes_tokenizer()
                             : wavroute::make_chars_tokenizer(wavroute::read_file(arguments[2]));
  wavroute::write_file_atomic(arguments[3], tokenizer->to_json());
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "write_tokenizer: %s\n", error.what());
  return 1;
}
