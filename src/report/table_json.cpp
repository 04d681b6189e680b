// A table as compare.json has it.
#include <nlohmann/json.hpp>

#include "report/table.h"

namespace wavroute {

nlohmann::ordered_json table_rows(const Table& table) {
  using Json = nlohmann::ordered_json;
  const auto or_null = [](const auto& value) { return value ? Json(*value) : Json(); };
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? Json() : Json(text);
  };
  Json rows = Json::array();
  for (const TableRow& row : table.rows) {
    Json keys = Json::object();
    for (const RowKey& entry : row.differs) keys[entry.key] = shown_value(entry.value);
    Json difference;
    if (row.difference) {
      difference = {{"mean", row.difference->mean},
                    {"half_width", or_null(row.difference->half_width)},
                    {"n", row.difference->n},
                    {"p", or_null(row.difference->p)}};
    }
    rows.push_back({{"label", row.label},
                    {"scheme", row.scheme},
                    {"role", to_string(row.role)},
                    {"depth", or_null(row.depth)},
                    {"keys", keys},
                    {"seeds", row.seeds},
                    {"finished", row.finished},
                    {"diverged", row.diverged},
                    {"failed", row.failed},
                    {"unfinished", row.pending + row.running + row.stopped},
                    {"duplicates", row.duplicates},
                    {"loss", or_null(row.loss)},
                    {"bits_per_byte", or_null(row.bits_per_byte)},
                    {"is_reference", row.is_reference},
                    {"difference", difference},
                    {"not_compared", row.not_compared.empty() ? Json() : Json(row.not_compared)},
                    {"bits_per_byte_compare", row.bits_compare},
                    {"tokens_per_s", or_null(row.tokens_per_s)},
                    {"speed_ratio", or_null(row.speed_ratio)},
                    {"peak_rss_bytes", or_null(row.peak_rss_bytes)},
                    {"parameters", or_null(row.parameters)},
                    {"noise_floor", or_null(row.noise_floor)},
                    {"p_holm", or_null(row.p_holm)},
                    {"target_loss", or_null(row.target_loss)},
                    {"tokens_to_target", or_null(row.tokens_to_target)},
                    {"seconds_to_target", or_null(row.seconds_to_target)},
                    {"equal_loss_compute", or_null(row.equal_loss_compute)},
                    {"equal_loss_extrapolated", row.is_extrapolated},
                    {"equal_loss_why", text_or_null(row.equal_loss_why)},
                    {"effective_speedup", or_null(row.effective_speedup)},
                    {"parameter_share", or_null(row.parameter_share)},
                    {"wider_for", row.wider_for},
                    {"spikes", row.spikes},
                    {"lr", or_null(row.lr)},
                    {"budget", or_null(row.budget)}});
  }
  return rows;
}

nlohmann::ordered_json table_decisions(const Table& table) {
  auto result = nlohmann::ordered_json::array();
  for (const DepthDecision& decision : table.decisions) {
    result.push_back({{"depth", decision.depth},
                      {"deepest", decision.deepest},
                      {"pairs", decision.accuracy.pairs},
                      {"agree", decision.accuracy.agree},
                      {"accuracy", decision.accuracy.share()}});
  }
  return result;
}

nlohmann::ordered_json table_rates(const Table& table) {
  auto result = nlohmann::ordered_json::array();
  for (const RateChoice& choice : table.rates) {
    result.push_back({{"label", choice.label},
                      {"depth", choice.depth ? nlohmann::ordered_json(*choice.depth) : nullptr},
                      {"lr", choice.lr},
                      {"tried", choice.tried},
                      {"at_end", choice.end_of_grid() != 0},
                      {"on_own_seed", choice.on_own_seed}});
  }
  return result;
}

}  // namespace wavroute
