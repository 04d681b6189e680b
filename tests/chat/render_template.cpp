// For tests in Python: reads lines of JSON {"template": ..., "variables": {...}, "time": seconds}
// from standard input and writes for each a line of JSON: {"text": ...}, or {"error": ...}.
#include <chrono>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "chat/template.h"
#include "wavroute/error.h"

int main() {
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);) {
    nlohmann::ordered_json answer;
    try {
      const auto task = nlohmann::ordered_json::parse(line);
      const std::chrono::seconds time(task.value("time", int64_t{0}));
      const wavroute::ChatTemplate chat(task.at("template").get<std::string>(), "T");
      answer["text"] =
          chat.render(task.at("variables"), std::chrono::system_clock::time_point(time));
    } catch (const wavroute::UserError& error) {
      answer["error"] = error.what();
    } catch (const std::exception& error) {
      answer["bug"] = error.what();
    }
    std::cout << answer.dump() << '\n';
  }
}
