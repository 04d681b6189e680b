// A run folder as the report reads it. The first byte says which of its files the rest is.
#include "fuzz.h"
#include "report/html.h"
#include "report/run_data.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  static const char* const kNames[] = {"summary.json", "metrics.jsonl", "env.json", "routing.json",
                                       "config.toml"};
  const auto run = fuzz::scratch() / "run";
  if (text.empty()) return;
  std::filesystem::remove_all(run);
  fuzz::put(run / "summary.json", R"({"scheme":"wav","status":"finished","val_loss":3.0})");
  fuzz::put(run / "metrics.jsonl", "{\"step\":1,\"loss\":5.5}\n{\"step\":2,\"val_loss\":4.5}\n");
  fuzz::put(run / kNames[static_cast<unsigned char>(text[0]) % 5], text.substr(1));
  fuzz::accepts([&] {
    const RunData data = read_run(run);
    int64_t step = 0;
    for (const TrainPoint& point : data.train) {
      fuzz::require(point.step >= step, "training rows are in the order of their steps");
      step = point.step;
    }
  });
  const auto page = fuzz::scratch() / "report.html";
  fuzz::accepts([&] {
    write_report(std::span(&run, 1), page);
    fuzz::require(std::filesystem::file_size(page) < 2'000'000 + 64 * text.size(),
                  "a page is not many times as long as what it shows");
  });
}
