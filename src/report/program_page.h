// The page of `wavroute program search`: loss against layers and against measured time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace wavroute {

// A program or another model, scored on the same held-out text.
struct ProgramPoint {
  std::string series;  // "tree search", "greedy removal", ...: points of one are joined by a line
  std::string label;   // the program, or the model's name
  double layers = 0.0;
  double loss = 0.0;          // nats per token
  double ms_per_token = 0.0;  // measured
};

// Writes one self-contained HTML page: two charts and the table. By an atomic rename.
void write_program_page(const std::string& title, const std::vector<std::string>& words,
                        const std::vector<ProgramPoint>& points, const std::filesystem::path& path);

}  // namespace wavroute
