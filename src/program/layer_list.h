// Layer programs as text: JSON lists of layers, [0, 1, 2, 2, 5], the form in which the public code
// of PoLar (arXiv 2606.06574) writes paths; and the command line's form, 0-1,2x2,5.
#pragma once

#include <filesystem>
#include <string>

#include "program/trials.h"

namespace wavroute {

// A program from a JSON file: a list of layer numbers, at least one, or an object whose "layers" is
// such a list. UserError for anything else and for a layer that a model of `layers` layers lacks.
[[nodiscard]] Layers read_layer_list(const std::filesystem::path& path, int64_t layers);
// Writes the list, by an atomic rename.
void write_layer_list(const Layers& program, const std::filesystem::path& path);
// The shortest form that LayerProgram::parse takes: ranges, and xN for a layer repeated.
[[nodiscard]] std::string program_text(const Layers& program);

}  // namespace wavroute
