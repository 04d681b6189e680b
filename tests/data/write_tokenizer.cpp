// For tests in Python:
//   write_tokenizer bytes|chars TEXT OUT   writes the tokenizer.json of a text;
//   write_tokenizer train TEXT OUT TOKENS  trains a byte-pair encoding;
//   write_tokenizer ids data|pieces|prompt TOKENIZER
//       reads texts from standard input, each a line that gives its bytes and then these, and
//       writes the ids of each, a line a text ("pieces": cut wherever that may be done), or
//       "error:" and the message;
//   write_tokenizer decode|stream TOKENIZER
//       reads lines of ids and writes the bytes of each behind a line that gives their number;
//   write_tokenizer seconds TEXT TOKENIZER   how long encoding a file takes, and the number of ids;
//   write_tokenizer about TOKENIZER   its end token, size and hash, and after them its JSON.
#include <charconv>
#include <chrono>
#include <cstdio>
#include <exception>
#include <iostream>
#include <span>
#include <sstream>
#include <string>
#include <string_view>

#include "data/bpe_trainer.h"
#include "io/file.h"
#include "wavroute/tokenizer.h"

namespace {

using wavroute::Tokenizer;

std::vector<uint32_t> encode(const Tokenizer& tokenizer, std::string_view kind,
                             std::string_view text) {
  if (kind == "prompt") return tokenizer.encode_prompt(text);
  if (kind == "data") return tokenizer.encode(text);
  std::vector<uint32_t> ids;
  for (size_t begin = 0; begin < text.size();) {
    const std::string_view rest = text.substr(begin);
    size_t length = 0;
    for (size_t at = 1; length == 0; ++at) length = tokenizer.cut(rest, at);
    const std::string_view piece = rest.substr(0, length);
    const auto more = begin == 0 ? tokenizer.encode(piece) : tokenizer.encode_rest(piece);
    ids.insert(ids.end(), more.begin(), more.end());
    begin += length;
  }
  return ids;
}

void write_ids(const Tokenizer& tokenizer, std::string_view kind) {
  size_t bytes = 0;
  while (std::cin >> bytes) {
    std::cin.ignore();
    std::string text(bytes, '\0');
    std::cin.read(text.data(), static_cast<std::streamsize>(bytes));
    try {
      for (const uint32_t id : encode(tokenizer, kind, text)) std::cout << id << ' ';
    } catch (const std::exception& error) {
      std::cout << "error: " << error.what();
    }
    std::cout << '\n';
  }
}

void write_texts(const std::shared_ptr<const Tokenizer>& tokenizer, bool is_stream) {
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream numbers(line);
    std::vector<uint32_t> ids;
    for (uint32_t id = 0; numbers >> id;) ids.push_back(id);
    std::string text;
    if (is_stream) {
      wavroute::StreamDecoder decoder(tokenizer);
      for (const uint32_t id : ids) text += decoder.feed(id);
      text += decoder.finish();
    } else {
      text = tokenizer->decode(ids);
    }
    std::cout << text.size() << '\n' << text;
  }
}

int run(std::span<char*> arguments) {
  const std::string_view verb = arguments.size() > 1 ? arguments[1] : "";
  if (arguments.size() == 4 && (verb == "bytes" || verb == "chars")) {
    const auto tokenizer = verb == "bytes"
                               ? wavroute::make_bytes_tokenizer()
                               : wavroute::make_chars_tokenizer(wavroute::read_file(arguments[2]));
    wavroute::write_file_atomic(arguments[3], tokenizer->to_json());
  } else if (arguments.size() == 5 && verb == "train") {
    wavroute::BpeTrainer trainer;
    trainer.add(wavroute::read_file(arguments[2]));
    wavroute::write_file_atomic(arguments[3], trainer.train(std::stoll(arguments[4])).json);
  } else if (arguments.size() == 4 && verb == "ids") {
    write_ids(*wavroute::load_tokenizer(arguments[3]), arguments[2]);
  } else if (arguments.size() == 3 && (verb == "decode" || verb == "stream")) {
    write_texts(wavroute::load_tokenizer(arguments[2]), verb == "stream");
  } else if (arguments.size() == 4 && verb == "seconds") {
    const auto tokenizer = wavroute::load_tokenizer(arguments[3]);
    const std::string text = wavroute::read_file(arguments[2]);
    const auto begin = std::chrono::steady_clock::now();
    const size_t count = tokenizer->encode(text).size();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    std::cout << seconds.count() << ' ' << count << '\n';
  } else if (arguments.size() == 3 && verb == "about") {
    const auto tokenizer = wavroute::load_tokenizer(arguments[2]);
    const auto end = tokenizer->end_token();
    std::cout << (end ? std::to_string(*end) : "none") << '\n'
              << tokenizer->vocab_size() << '\n'
              << tokenizer->hash() << '\n'
              << tokenizer->to_json();
  } else {
    std::fputs("usage: see write_tokenizer.cpp\n", stderr);
    return 2;
  }
  return 0;
}

}  // namespace

int main(int count, char** values) try {
  std::ios::sync_with_stdio(false);
  return run({values, static_cast<size_t>(count)});
} catch (const std::exception& error) {
  std::fprintf(stderr, "write_tokenizer: %s\n", error.what());
  return 1;
}
