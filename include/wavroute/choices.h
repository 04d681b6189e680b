// What a configuration chooses by a word. Torch-free.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace wavroute {

// fp32: everything fp32. bf16: matrix products, sublayer inputs and outputs in bf16, the rest fp32.
// fp64: everything fp64, for tests.
enum class Precision { kFp32, kBf16, kFp64 };

// What a pass runs on: our kernels (CPU, fp32 and bf16), or stock operators (any device and type),
// of which the kernels are a faster form. Auto: the kernels wherever they can be.
enum class KernelChoice { kAuto, kFused, kComposed };

// What the backward keeps of the forward: everything, or what starts each block or layer (the rest
// is computed again).
enum class Recompute { kNone, kBlock, kLayer };

enum class DeviceKind { kCpu, kCuda };

enum class OptimizerKind { kAdamW };

enum class ScheduleKind { kCosine, kWsd, kConstant };

// How a file is read (src/data/split.h).
enum class DataFormat { kAuto, kText, kBytes, kTokens16, kTokens32 };

// A file: a tokenizer.json or the like, whose path stands in the word's place.
enum class TokenizerKind { kBytes, kChars, kFile };

// What becomes of a character that the vocabulary of a text seen later lacks: an error, nothing, or
// a token of its own.
enum class UnknownText { kError, kDrop, kUnk };

// How the frequencies of the rotary embedding are scaled (src/config/rope_scaling.h).
enum class RopeType { kDefault, kLinear, kLlama3, kYarn };

// The words of an enumeration's values, in their order.
template <size_t N>
using ChoiceWords = std::array<std::string_view, N>;
constexpr ChoiceWords<3> words_of(Precision /*type*/) { return {"fp32", "bf16", "fp64"}; }
constexpr ChoiceWords<3> words_of(KernelChoice /*type*/) { return {"auto", "fused", "composed"}; }
constexpr ChoiceWords<3> words_of(Recompute /*type*/) { return {"none", "block", "layer"}; }
constexpr ChoiceWords<2> words_of(DeviceKind /*type*/) { return {"cpu", "cuda"}; }
constexpr ChoiceWords<1> words_of(OptimizerKind /*type*/) { return {"adamw"}; }
constexpr ChoiceWords<3> words_of(ScheduleKind /*type*/) { return {"cosine", "wsd", "constant"}; }
constexpr ChoiceWords<5> words_of(DataFormat /*type*/) {
  return {"auto", "text", "bytes", "tokens16", "tokens32"};
}
constexpr ChoiceWords<3> words_of(TokenizerKind /*type*/) { return {"bytes", "chars", "file"}; }
constexpr ChoiceWords<3> words_of(UnknownText /*type*/) { return {"error", "drop", "unk"}; }
constexpr ChoiceWords<4> words_of(RopeType /*type*/) {
  return {"default", "linear", "llama3", "yarn"};
}

template <typename Choice>
requires requires(Choice choice) { words_of(choice); }
[[nodiscard]] std::string to_string(Choice choice) {
  return std::string(words_of(choice)[static_cast<size_t>(choice)]);
}

// A choice that is left to the program is "auto".
template <typename Choice>
[[nodiscard]] std::string to_string(const std::optional<Choice>& choice) {
  return choice ? to_string(*choice) : "auto";
}

// The value that a word stands for; nothing for another word.
template <typename Choice>
[[nodiscard]] std::optional<Choice> find_choice(std::string_view word) {
  constexpr auto kWords = words_of(Choice{});
  for (size_t i = 0; i < kWords.size(); ++i) {
    if (kWords[i] == word) return static_cast<Choice>(i);
  }
  return std::nullopt;
}

}  // namespace wavroute
