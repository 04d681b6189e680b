// The rows of metrics.jsonl as a resume cuts them.
#include "fuzz.h"
#include "io/file.h"
#include "io/jsonl.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  const auto file = fuzz::scratch() / "metrics.jsonl";
  fuzz::put(file, text);
  fuzz::accepts([&] {
    cut_metrics(file, 3);
    const std::string kept = read_file(file);
    fuzz::require(kept.size() <= text.size(), "cutting adds nothing");
    fuzz::require(kept.empty() || kept.back() == '\n', "what is kept ends with a whole line");
    cut_metrics(file, 3);
    fuzz::require(read_file(file) == kept, "cutting twice is cutting once");
  });
}
