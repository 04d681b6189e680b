#include "report/html.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <regex>
#include <vector>

#include "report/html_parts.h"
#include "run_folder_maker.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

std::string read(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::string page_of(const std::vector<fs::path>& folders, const fs::path& out) {
  write_report(folders, out);
  return read(out);
}

// The data that the page's script reads.
json data_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const auto begin = page.find(open) + open.size();
  return json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

json cell(const std::string& label, int seed, double loss) {
  return {{"label", label},
          {"scheme", label},
          {"depth", 12},
          {"seed", seed},
          {"run", "cells/" + label + std::to_string(seed)},
          {"status", "finished"},
          {"val_loss", loss}};
}

// The finished run of that cell, of seed 1; `changes` over its summary.
void make_cell(const fs::path& comparison, const std::string& label, double loss,
               const json& changes = json::object()) {
  const fs::path run = make_run(comparison / "cells" / (label + "1"), label);
  json summary = json::parse(read(run / "summary.json"));
  summary["val_loss"] = loss;
  summary.update(changes);
  write(run / "summary.json", summary.dump());
}

TEST(Report, ThePageRefersToNothingOutsideItself) {
  const TemporaryFolder folder;
  const auto page = page_of({make_run(folder.path() / "run")}, folder.path() / "report.html");
  // The name of SVG's element type is the one address in it, and is never loaded.
  const auto rest = std::regex_replace(page, std::regex("\"http://www.w3.org/2000/svg\""), "");
  EXPECT_EQ(rest.find("http:"), std::string::npos);
  EXPECT_EQ(rest.find("https:"), std::string::npos);
  EXPECT_FALSE(std::regex_search(rest, std::regex(R"(\bsrc\s*=|@import|url\((?!#)|fetch\()")));
  EXPECT_FALSE(std::regex_search(rest, std::regex("href=\"(?!data:,\")")));
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
}

TEST(Report, HostileTextStaysText) {
  const TemporaryFolder folder;
  const std::string hostile =
      "</script><script>alert(1)</script><img onerror='x' a=\"b\">{{data}}&";
  const auto plain = page_of({make_run(folder.path() / "plain")}, folder.path() / "a.html");
  make_run(folder.path() / "hostile", hostile);
  write(folder.path() / "hostile/config.toml", "# " + hostile + "\n");
  write(folder.path() / "hostile/env.json", json({{hostile, hostile}}).dump());
  write(folder.path() / "hostile/routing.json",
        json({{"sublayers",
               {{{"sublayer", 2},
                 {"kind", hostile},
                 {"sources", {{{"label", hostile}, {"type", hostile}, {"weight", 1.0}}}}}}}})
            .dump());
  const auto page = page_of({folder.path() / "hostile"}, folder.path() / "b.html");
  EXPECT_EQ(count(page, "<script"), count(plain, "<script"));
  EXPECT_EQ(count(page, "</script"), count(plain, "</script"));
  EXPECT_EQ(count(page, "<img"), 0U);
  EXPECT_THAT(page, HasSubstr("&lt;img onerror=&#39;x&#39; a=&quot;b&quot;&gt;{{data}}&amp;"));
  EXPECT_EQ(data_of(page).at("runs")[0].at("label"), hostile);
  EXPECT_EQ(data_of(page).at("runs")[0].at("routing").at("sources").at("columns")[0].at("label"),
            hostile);
}

TEST(Report, TextThatIsNotUtf8IsMendedRatherThanFatal) {
  EXPECT_EQ(script_json(json("a\xff")), "\"a\\ufffd\"");
}

TEST(Report, EveryRunIsACurveWithItsPoints) {
  const TemporaryFolder folder;
  std::vector<fs::path> runs;
  for (int seed = 1; seed <= 12; ++seed) {
    runs.push_back(make_run(folder.path() / std::to_string(seed), "wav", seed));
  }
  const json data = data_of(page_of(runs, folder.path() / "report.html"));
  ASSERT_EQ(data.at("runs").size(), 12U);
  EXPECT_EQ(data.at("rows").size(), 1U);  // seeds share a row
  EXPECT_EQ(data.at("runs")[11].at("seed"), 12);
  EXPECT_EQ(data.at("runs")[0].at("train").at("loss"), json({5.5, 4.5, 3.5, 3.25}));
  EXPECT_EQ(data.at("runs")[0].at("validation").at("steps"), json({2, 4}));
}

TEST(Report, ALongRunIsThinnedToMeansThatKeepItsEnd) {
  const TemporaryFolder folder;
  std::string rows;
  for (int step = 1; step <= 8000; ++step) {
    rows += json({{"step", step}, {"loss", step}}).dump() + "\n";
  }
  write(folder.path() / "metrics.jsonl", rows);
  const json data = data_of(page_of({folder.path()}, folder.path() / "report.html"));
  const json& train = data.at("runs")[0].at("train");
  ASSERT_EQ(train.at("steps").size(), 800U);
  EXPECT_EQ(train.at("steps")[0], 10);
  EXPECT_EQ(train.at("loss")[0], 5.5);  // of 1..10
  EXPECT_EQ(train.at("steps")[799], 8000);
  EXPECT_EQ(train.at("loss")[799], 7995.5);
}

TEST(Report, WeightsStandUnderTheirSourceInEveryRow) {
  const TemporaryFolder folder;
  make_run(folder.path());
  write(folder.path() / "routing.json", R"({"sublayers": [
    {"sublayer": 2, "layer": 0, "kind": "mlp", "sources": [
      {"label": "e", "type": "summary", "weight": 0.75}, {"label": "P1", "type": "phase", "weight": 0.25}]},
    {"sublayer": 5, "kind": "read_out", "sources": [
      {"label": "S1", "type": "summary", "weight": 0.125}, {"label": "e", "type": "summary", "weight": 0.875}]}],
    "depth": {"mean": 1.5, "histogram": [30, 10]}})");
  const json routing =
      data_of(page_of({folder.path()}, folder.path() / "report.html")).at("runs")[0].at("routing");
  const json& sources = routing.at("sources");
  ASSERT_EQ(sources.at("columns").size(), 3U);
  EXPECT_EQ(sources.at("columns")[1], json({{"label", "P1"}, {"type", "phase"}}));
  EXPECT_EQ(sources.at("rows")[0].at("weights"), json({0.75, 0.25}));
  EXPECT_EQ(sources.at("rows")[1].at("weights"), json({0.875, nullptr, 0.125}));
  EXPECT_EQ(routing.at("depth").at("shares"), json({0.75, 0.25}));
}

TEST(Report, AComparisonShowsItsTableAndTheCurvesItHas) {
  const TemporaryFolder folder;
  make_cell(folder.path(), "prenorm", 1.5);
  make_cell(folder.path(), "wav", 1.25);
  json pending = cell("act", 1, 0);
  pending["status"] = "pending";
  write(folder.path() / "compare.json",
        json({{"name", "deep ones"},
              {"cells", {cell("prenorm", 1, 1.5), cell("wav", 1, 1.25), pending}},
              {"corpus", {{"sha256", "c0ffee"}}}})
            .dump());
  const auto page = page_of({folder.path()}, folder.path() / "report.html");
  EXPECT_THAT(page, HasSubstr("<title>deep ones"));
  EXPECT_THAT(page, HasSubstr("−0.2500 (n=1)"));
  EXPECT_THAT(page, HasSubstr("c0ffee"));
  EXPECT_THAT(page, HasSubstr("act at 12 layers is not finished"));
  const json data = data_of(page);
  ASSERT_EQ(data.at("runs").size(), 2U);
  EXPECT_EQ(data.at("runs")[0].at("label"), "prenorm");  // by the cell, not the run
  EXPECT_EQ(data.at("runs")[1].at("reference"), "prenorm");
}

TEST(Report, ACellThatWasGivenMoreStepsShowsItsNewLossAndNoDifference) {
  const TemporaryFolder folder;
  make_cell(folder.path(), "prenorm", 1.5);
  make_cell(folder.path(), "wav", 0.75, {{"steps", 30}});
  const std::string config = "[model]\nlayers = 12\n[train]\nsteps = ";
  for (const char* label : {"prenorm", "wav"}) {
    write(folder.path() / "configs" / (std::string(label) + "1.toml"), config + "4\n");
    write(folder.path() / "cells" / (std::string(label) + "1") / "config.toml",
          config + (std::string(label) == "wav" ? "30\n" : "4\n"));
  }
  write(folder.path() / "compare.json",
        json({{"cells", {cell("prenorm", 1, 1.5), cell("wav", 1, 1.25)}}}).dump());
  const auto page = page_of({folder.path()}, folder.path() / "report.html");
  EXPECT_THAT(page, HasSubstr("0.7500"));
  EXPECT_THAT(page, Not(HasSubstr("1.2500")));
  EXPECT_THAT(page, HasSubstr("another number of steps"));
  EXPECT_THAT(page, Not(HasSubstr("(n=1)")));
}

TEST(Report, ARunStandsForOneCell) {
  const TemporaryFolder folder;
  make_cell(folder.path(), "wav", 1.0);
  json again = cell("wav", 2, 1.0);
  again["run"] = "cells/../cells/wav1";
  write(folder.path() / "compare.json", json({{"cells", {cell("wav", 1, 1.0), again}}}).dump());
  const std::vector<fs::path> folders = {folder.path()};
  EXPECT_THROW(write_report(folders, folder.path() / "report.html"), UserError);
}

TEST(Report, TextAndMachineAreNamedWhereAllRunsHaveThem) {
  const TemporaryFolder folder;
  const auto run = [&](const char* name, const char* text, const char* cpu) {
    fs::path path = make_run(folder.path() / name, name);
    json summary = json::parse(read(path / "summary.json"));
    summary.update({{"corpus", text}, {"corpus_sha256", text}, {"corpus_valid_sha256", "v"}});
    write(path / "summary.json", summary.dump());
    write(path / "env.json", json({{"cpu", cpu}}).dump());
    return path;
  };
  const fs::path a = run("a", "text-one", "cpu-one"), b = run("b", "text-one", "cpu-two"),
                 c = run("c", "text-two", "cpu-one");
  const auto has = [&](const std::vector<fs::path>& runs, const char* heading) {
    const auto page = page_of(runs, folder.path() / "report.html");
    return count(page, "<summary>" + std::string(heading) + "</summary>") == 1;
  };
  EXPECT_TRUE(has({a, b}, "Text"));
  EXPECT_FALSE(has({a, b}, "Machine"));
  EXPECT_FALSE(has({a, c}, "Text"));
  EXPECT_TRUE(has({a, c}, "Machine"));
}

std::string words(const std::vector<std::pair<double, double>>& prenorm_and_wav) {
  ReportSection section;
  int seed = 0;
  for (const auto& [prenorm, wav] : prenorm_and_wav) {
    ++seed;
    for (const auto& [label, loss] : {std::pair("prenorm", prenorm), std::pair("wav", wav)}) {
      Cell cell;
      cell.label = cell.scheme = label;
      cell.depth = 12;
      cell.seed = seed;
      cell.status = CellStatus::kFinished;
      cell.val_loss = loss;
      section.comparison.cells.push_back(cell);
    }
  }
  section.table = make_table(section.comparison);
  std::string text;
  for (const auto& paragraph : summary_words(section)) text += paragraph + "\n";
  return text;
}

TEST(Summary, ClaimsADifferenceOnlyWhereTheIntervalExcludesZero) {
  EXPECT_THAT(words({{2.0, 1.0}, {2.0, 1.1}, {2.0, 1.05}}),
              HasSubstr("lower than prenorm's for wav"));
  EXPECT_THAT(words({{1.0, 2.0}, {1.1, 2.0}, {1.0, 2.1}}),
              HasSubstr("higher than prenorm's for wav"));
  const auto open = words({{2.0, 1.0}, {2.0, 3.0}, {2.0, 1.5}});
  EXPECT_THAT(open, HasSubstr("no difference shown"));
  EXPECT_THAT(open, Not(HasSubstr("lower than")));
}

TEST(Summary, OneSeedShowsNoDifferenceHoweverLarge) {
  const auto text = words({{9.0, 1.0}});
  EXPECT_THAT(text, HasSubstr("one seed only, so no difference shown"));
  EXPECT_THAT(text, Not(HasSubstr("lower than")));
}

TEST(Report, ARoutingFileThatAsksForManyPlacesMakesNoLargePage) {
  const TemporaryFolder folder;
  make_run(folder.path());
  json routing = {{"sublayers", json::array()}};
  for (int i = 0; i < 5000; ++i) {  // another source in every row: 12.5 million cells
    const json source = {{"label", std::to_string(i)}, {"weight", 1.0}};
    routing["sublayers"].push_back({{"sublayer", i}, {"sources", {source}}});
  }
  write(folder.path() / "routing.json", routing.dump());
  const auto page = page_of({folder.path()}, folder.path() / "report.html");
  EXPECT_LT(page.size(), 4 * routing.dump().size());
  EXPECT_TRUE(data_of(page).at("runs")[0].at("routing").is_null());
}

TEST(Report, TheRoutingOfADeepModelThatReadsAllSourcesIsShown) {
  const TemporaryFolder folder;
  make_run(folder.path());
  json routing = {{"sublayers", json::array()}};
  for (int i = 1; i <= 400; ++i) {
    json sources = json::array();
    for (int k = 0; k < i; ++k) sources.push_back({{"label", std::to_string(k)}, {"weight", 0.1}});
    routing["sublayers"].push_back({{"sublayer", i}, {"sources", sources}});
  }
  write(folder.path() / "routing.json", routing.dump());
  const json data = data_of(page_of({folder.path()}, folder.path() / "report.html"));
  EXPECT_EQ(data.at("runs")[0].at("routing").at("sources").at("rows").size(), 400U);
}

TEST(Report, AComparisonNamesNoRunOutsideItsFolder) {
  const TemporaryFolder folder;
  make_run(folder.path() / "outside");
  fs::create_directories(folder.path() / "compare");
  fs::create_directory_symlink(folder.path() / "outside", folder.path() / "compare/link");
  const std::vector<std::string> runs = {"../outside", (folder.path() / "outside").string(), "link",
                                         "x/../../outside"};
  for (const std::string& run : runs) {
    json entry = cell("wav", 1, 1.0);
    entry["run"] = run;
    write(folder.path() / "compare/compare.json", json({{"cells", {entry}}}).dump());
    const std::vector<fs::path> folders = {folder.path() / "compare"};
    EXPECT_THROW(write_report(folders, folder.path() / "report.html"), UserError) << run;
  }
}

TEST(Report, ABrokenRunOfAComparisonIsNamedAndTheOthersShown) {
  const TemporaryFolder folder;
  make_run(folder.path() / "cells/prenorm1");
  make_run(folder.path() / "cells/wav1");
  write(folder.path() / "cells/wav1/env.json", "{");
  write(folder.path() / "compare.json",
        json({{"cells", {cell("prenorm", 1, 1.5), cell("wav", 1, 1.25)}}}).dump());
  const auto page = page_of({folder.path()}, folder.path() / "report.html");
  EXPECT_THAT(page, HasSubstr("wav1/env.json:1"));
  EXPECT_EQ(data_of(page).at("runs").size(), 1U);
}

TEST(Report, AFolderGivenTwiceIsOneRun) {
  const TemporaryFolder folder;
  make_run(folder.path() / "run");
  const std::vector<fs::path> twice = {folder.path() / "run", folder.path() / "run/"};
  EXPECT_EQ(data_of(page_of(twice, folder.path() / "report.html")).at("runs").size(), 1U);
}

TEST(Report, FoldersThatCannotBeReportedAreUserErrors) {
  const TemporaryFolder folder;
  const auto out = folder.path() / "report.html";
  fs::create_directories(folder.path() / "empty");
  write(folder.path() / "broken/compare.json", "{\"cells\": [");
  for (const char* name : {"missing", "empty", "broken"}) {
    const std::vector<fs::path> folders = {folder.path() / name};
    EXPECT_THROW(write_report(folders, out), UserError) << name;
  }
  EXPECT_THROW(write_report({}, out), UserError);
  EXPECT_FALSE(fs::exists(out));
}

}  // namespace
}  // namespace wavroute
