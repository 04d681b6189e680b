#include "report/row_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "io/file.h"
#include "report/sqlite_file.h"

namespace wavroute {
namespace {

using Json = nlohmann::ordered_json;

// `object` with the members of its members in their places: {"a": {"b": 1}} is {"a_b": 1}. A list,
// and the keys that are different from table to table, are texts.
void flatten(const Json& object, const std::string& prefix, Json& flat) {
  constexpr auto kMendText = Json::error_handler_t::replace;
  for (const auto& [key, value] : object.items()) {
    const std::string name = prefix + key;
    if (value.is_object() && key != "keys") {
      flatten(value, name + "_", flat);
    } else if (value.is_structured()) {
      flat[name] = value.dump(-1, ' ', false, kMendText);
    } else {
      flat[name] = value;
    }
  }
}

FlatTable flat_table(const std::string& name, const Json& objects) {
  FlatTable table{name, {}, {}};
  std::vector<Json> flat;
  for (const Json& object : objects) {
    flatten(object, "", flat.emplace_back(Json::object()));
    for (const auto& [key, value] : flat.back().items()) {
      // A difference that is null has no members: they are those of the other rows.
      if (std::ranges::find(table.columns, key) == table.columns.end()) {
        table.columns.push_back(key);
      }
    }
  }
  std::erase(table.columns, "difference");
  for (const Json& row : flat) {
    std::vector<FlatValue>& values = table.rows.emplace_back();
    for (const std::string& column : table.columns) {
      const auto found = row.find(column);
      if (found == row.end() || found->is_null()) {
        values.emplace_back();
      } else if (found->is_boolean()) {
        values.emplace_back(static_cast<int64_t>(found->get<bool>()));
      } else if (found->is_number_integer()) {
        values.emplace_back(found->get<int64_t>());
      } else if (found->is_number()) {
        values.emplace_back(found->get<double>());
      } else {
        values.emplace_back(found->get<std::string>());
      }
    }
  }
  return table;
}

std::string csv_text(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string csv_value(const FlatValue& value) {
  if (const auto* whole = std::get_if<int64_t>(&value)) return Json(*whole).dump();
  if (const auto* number = std::get_if<double>(&value)) return Json(*number).dump();
  if (const auto* text = std::get_if<std::string>(&value)) return csv_text(*text);
  return {};
}

}  // namespace

std::string rows_csv(const Table& table) {
  const FlatTable flat = flat_table("rows", table_rows(table));
  std::string text;
  const auto line = [&](const auto& items, auto item_text) {
    for (std::size_t i = 0; i < items.size(); ++i) text += (i > 0 ? "," : "") + item_text(items[i]);
    text += "\n";
  };
  line(flat.columns, csv_text);
  for (const auto& row : flat.rows) line(row, csv_value);
  return text;
}

void write_rows_sqlite(const std::filesystem::path& file, const Comparison& comparison,
                       const Table& table) {
  const Json document = comparison_document(comparison);
  const std::vector<FlatTable> tables = {flat_table("rows", table_rows(table)),
                                         flat_table("cells", document.at("cells"))};
  write_file_atomic(file, sqlite_bytes(tables));
}

}  // namespace wavroute
