#include <ATen/ATen.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "inspect/inspection.h"
#include "inspect/layer_pass.h"

namespace wavroute {
namespace {

using Json = nlohmann::ordered_json;

// The means of one reader over the tokens of one group.
class ReaderMeans {
 public:
  ReaderMeans(const ReaderSums& sums, const at::Tensor& counts, int64_t group)
      : sums_(sums), group_(group), count_(counts[group].item<double>()) {}

  [[nodiscard]] bool is_routed() const { return !sums_.sources.empty(); }
  [[nodiscard]] double feature(int64_t row) const {
    return sums_.sums[row][group_].item<double>() / count_;
  }
  [[nodiscard]] double weight(size_t source) const {
    return feature(kFeatures + static_cast<int64_t>(source));
  }
  // The share of tokens that read `source` most.
  [[nodiscard]] double top_share(size_t source) const {
    return feature(kFeatures + static_cast<int64_t>(sums_.sources.size() + source));
  }
  [[nodiscard]] Json weights() const {
    Json result = Json::array();
    for (size_t j = 0; j < sums_.sources.size(); ++j) result.push_back(weight(j));
    return result;
  }
  // Of sources that are details, or of the others.
  [[nodiscard]] double share(bool details) const {
    double sum = 0.0;
    for (size_t j = 0; j < sums_.sources.size(); ++j) {
      const std::string& type = sums_.sources[j].type;
      if ((type != "summary" && type != "embedding") == details) sum += weight(j);
    }
    return sum;
  }

  // What routers and gates do, and how far back the stream reaches: under the keys of "sublayers".
  void put_routing(Json& entry) const {
    entry["weights"] = weights();
    entry["entropy"] = is_routed() ? Json(feature(kEntropy)) : Json();
    entry["summaries"] = is_routed() ? Json(share(false)) : Json();
    entry["details"] = is_routed() ? Json(share(true)) : Json();
    entry["age"] = feature(kAge);
  }

 private:
  const ReaderSums& sums_;
  int64_t group_;
  double count_;
};

Json gate_json(const ReaderSums& sums, const ReaderMeans& means) {
  if (sums.gate_counts.empty()) return nullptr;
  int64_t total = 0;
  for (const int64_t count : sums.gate_counts) total += count;
  const auto hundredths = static_cast<double>(sums.gate_counts.size() - 1);
  const auto quantile = [&](double fraction) {
    int64_t below = 0;
    for (size_t bin = 0; bin < sums.gate_counts.size(); ++bin) {
      below += sums.gate_counts[bin];
      if (static_cast<double>(below) >= fraction * static_cast<double>(total)) {
        return static_cast<double>(bin) / hundredths;
      }
    }
    return 1.0;
  };
  const auto share = [&](int64_t count) {
    return static_cast<double>(count) / static_cast<double>(total);
  };
  return {{"mean", means.feature(kGate)},
          {"p10", quantile(0.1)},
          {"p90", quantile(0.9)},
          {"closed", share(sums.gate_counts.front())},  // below 0.005
          {"open", share(sums.gate_counts.back())}};    // from 0.995 on
}

Json place_of(const Inspection& inspection, size_t reader) {
  if (reader == inspection.sites.size()) {
    return {
        {"name", "read-out"}, {"sublayer", reader + 1}, {"layer", nullptr}, {"kind", "read_out"}};
  }
  const Site& site = inspection.sites[reader];
  return {{"name", names_of(inspection.sites)[reader]},
          {"sublayer", reader + 1},
          {"layer", site.layer},
          {"kind", site.kind == SublayerKind::kMlp ? "mlp" : "attention"}};
}

// Of what the reader after it reads; after the last sublayer that is the read-out.
double loss_if_last(const Inspection& inspection, size_t reader, int64_t group) {
  const size_t next = std::min(reader + 1, inspection.sites.size());
  return ReaderMeans(inspection.readers[next], inspection.counts, group).feature(kLoss);
}

Json sublayer_json(const Inspection& inspection, size_t reader) {
  const ReaderSums& sums = inspection.readers[reader];
  const ReaderMeans means(sums, inspection.counts, 0);
  const bool is_sublayer = reader < inspection.sites.size();
  Json entry = place_of(inspection, reader);
  entry["sources"] = Json::array();
  entry["types"] = Json::array();
  size_t top = 0;
  for (size_t j = 0; j < sums.sources.size(); ++j) {
    entry["sources"].push_back(sums.sources[j].name);
    entry["types"].push_back(sums.sources[j].type);
    if (means.top_share(j) > means.top_share(top)) top = j;
  }
  means.put_routing(entry);
  entry["top"] = means.is_routed() ? Json(sums.sources[top].name) : Json();
  entry["top_share"] = means.is_routed() ? Json(means.top_share(top)) : Json();
  entry["gate"] = gate_json(sums, means);
  const auto of_sublayer = [&](int64_t row) {
    return is_sublayer ? Json(means.feature(row)) : Json();
  };
  entry["norms"] = {{"stream", means.feature(kStream)},
                    {"update", of_sublayer(kUpdate)},
                    {"gradient", of_sublayer(kGradient)}};
  entry["cosine"] = of_sublayer(kCosine);
  entry["loss_if_last"] = loss_if_last(inspection, reader, 0);
  return entry;
}

Json mixing_json(const Inspection& inspection) {
  const double tokens = inspection.counts[0].item<double>();
  Json rows = Json::array();
  for (int64_t reader = 0; reader < inspection.mixing.size(0); ++reader) {
    Json row = Json::array();
    for (int64_t column = 0; column < inspection.mixing.size(1); ++column) {
      row.push_back(column <= reader
                        ? Json(inspection.mixing[reader][column].item<double>() / tokens)
                        : Json());
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

Json group_json(const Inspection& inspection, size_t group) {
  const auto g = static_cast<int64_t>(group);
  const double count = inspection.counts[g].item<double>();
  Json entry = {{"kind", inspection.groups[group].kind}, {"tokens", count}};
  if (count == 0.0) return entry;
  const ReaderMeans out(inspection.readers.back(), inspection.counts, g);
  entry["loss"] = out.feature(kLoss);
  entry["depth"] =
      inspection.depth.defined() ? Json(inspection.depth[g].item<double>() / count) : Json();
  Json sublayers = Json::array();
  double entropy = 0.0, details = 0.0, age = 0.0, gate = 0.0;
  int64_t routers = 0, gates = 0;
  for (size_t reader = 0; reader < inspection.readers.size(); ++reader) {
    const ReaderSums& sums = inspection.readers[reader];
    const ReaderMeans means(sums, inspection.counts, g);
    Json of_reader = Json::object();
    means.put_routing(of_reader);
    of_reader["loss_if_last"] = loss_if_last(inspection, reader, g);
    of_reader["gate"] = sums.gate_counts.empty() ? Json() : Json(means.feature(kGate));
    sublayers.push_back(std::move(of_reader));
    age += means.feature(kAge);
    if (sums.sources.size() > 1) {
      entropy += means.feature(kEntropy);
      details += means.share(true);
      ++routers;
    }
    if (!sums.gate_counts.empty()) gate += means.feature(kGate), ++gates;
  }
  const auto mean = [](double sum, int64_t n) {
    return n == 0 ? Json() : Json(sum / static_cast<double>(n));
  };
  entry["entropy"] = mean(entropy, routers);
  entry["details"] = mean(details, routers);
  entry["age"] = age / static_cast<double>(inspection.readers.size());
  entry["gate"] = mean(gate, gates);
  entry["sublayers"] = std::move(sublayers);
  return entry;
}

}  // namespace

Json to_json(const Inspection& inspection) {
  Json document;
  document["scored"] = inspection.counts[0].item<double>();
  const auto loss = [&](const ReaderSums& sums) {
    return ReaderMeans(sums, inspection.counts, 0).feature(kLoss);
  };
  document["loss"] = loss(inspection.readers.back());
  document["embedding_loss"] = loss(inspection.readers.front());
  document["sublayers"] = Json::array();
  for (size_t reader = 0; reader < inspection.readers.size(); ++reader) {
    document["sublayers"].push_back(sublayer_json(inspection, reader));
  }
  document["depth_mixing"] = mixing_json(inspection);
  document["tokens"] = Json::object();
  for (size_t group = 1; group < inspection.groups.size(); ++group) {
    document["tokens"][inspection.groups[group].name] = group_json(inspection, group);
  }
  document["depth"] = nullptr;
  if (inspection.depth.defined()) {
    document["depth"] = {{"mean", (inspection.depth[0] / inspection.counts[0]).item<double>()},
                         {"histogram", std::vector<int64_t>(inspection.depths.begin() + 1,
                                                            inspection.depths.end())}};
  }
  return document;
}

}  // namespace wavroute
