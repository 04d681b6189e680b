// Tables as the bytes of an SQLite database.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace wavroute {

using FlatValue = std::variant<std::monostate, int64_t, double, std::string>;

struct FlatTable {
  std::string name;
  std::vector<std::string> columns;
  std::vector<std::vector<FlatValue>> rows;  // as many values as columns
};

// A Failure where SQLite reports one, or where the program was built without it.
[[nodiscard]] std::string sqlite_bytes(const std::vector<FlatTable>& tables);

}  // namespace wavroute
