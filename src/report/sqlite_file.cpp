#include "report/sqlite_file.h"

#include "wavroute/error.h"

#ifdef WAVROUTE_SQLITE
#include <fmt/format.h>
#include <sqlite3.h>

#include <memory>
#endif

namespace wavroute {

#ifdef WAVROUTE_SQLITE
namespace {

struct Closer {
  void operator()(sqlite3* database) const { sqlite3_close(database); }
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  void operator()(unsigned char* bytes) const { sqlite3_free(bytes); }
};
using Database = std::unique_ptr<sqlite3, Closer>;
using Statement = std::unique_ptr<sqlite3_stmt, Closer>;

void check(int code, sqlite3* database) {
  if (code == SQLITE_OK || code == SQLITE_DONE) return;
  throw Failure(fmt::format("SQLite: {}", sqlite3_errmsg(database)));
}

Statement prepared(sqlite3* database, const std::string& text) {
  sqlite3_stmt* statement = nullptr;
  check(sqlite3_prepare_v2(database, text.c_str(), -1, &statement, nullptr), database);
  return Statement(statement);
}

void run(sqlite3* database, const std::string& text) {
  check(sqlite3_step(prepared(database, text).get()), database);
}

std::string quoted(const std::string& name) {
  std::string text = "\"";
  for (const char c : name) text += c == '"' ? std::string("\"\"") : std::string(1, c);
  return text + "\"";
}

void bind(sqlite3_stmt* statement, int place, const FlatValue& value, sqlite3* database) {
  if (const auto* whole = std::get_if<int64_t>(&value)) {
    check(sqlite3_bind_int64(statement, place, *whole), database);
  } else if (const auto* number = std::get_if<double>(&value)) {
    check(sqlite3_bind_double(statement, place, *number), database);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    // The text outlives the statement's step.
    check(
        sqlite3_bind_text(statement, place, text->data(), static_cast<int>(text->size()), nullptr),
        database);
  } else {
    check(sqlite3_bind_null(statement, place), database);
  }
}

void add_table(sqlite3* database, const FlatTable& table) {
  std::string columns, places;
  for (const std::string& column : table.columns) {
    columns += (columns.empty() ? "" : ", ") + quoted(column);
    places += places.empty() ? "?" : ", ?";
  }
  if (columns.empty()) columns = "nothing";  // a table has a column
  run(database, fmt::format("CREATE TABLE {} ({})", quoted(table.name), columns));
  if (table.rows.empty()) return;
  const Statement insert =
      prepared(database, fmt::format("INSERT INTO {} VALUES ({})", quoted(table.name), places));
  for (const std::vector<FlatValue>& row : table.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      bind(insert.get(), static_cast<int>(i) + 1, row[i], database);
    }
    check(sqlite3_step(insert.get()), database);
    check(sqlite3_reset(insert.get()), database);
  }
}

}  // namespace

std::string sqlite_bytes(const std::vector<FlatTable>& tables) {
  sqlite3* opened = nullptr;
  const int code = sqlite3_open(":memory:", &opened);
  const Database database(opened);
  check(code, opened);
  run(opened, "BEGIN");
  for (const FlatTable& table : tables) add_table(opened, table);
  run(opened, "COMMIT");
  sqlite3_int64 size = 0;
  const std::unique_ptr<unsigned char, Closer> bytes(sqlite3_serialize(opened, "main", &size, 0));
  if (!bytes) throw Failure("SQLite: no memory for the database");
  return {reinterpret_cast<const char*>(bytes.get()), static_cast<std::size_t>(size)};
}
#else
std::string sqlite_bytes(const std::vector<FlatTable>&) {
  throw Failure(
      "SQLite: wavroute was built without libsqlite3 (./dev setup installs libsqlite3-dev)");
}
#endif

}  // namespace wavroute
