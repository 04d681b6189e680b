// Values of state.json: wrong ones are named, with their key, and never used.
#include "io/checkpoint_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "io/file.h"
#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using testing::get;
using ::testing::HasSubstr;
using testing::message_of;
using ::testing::Optional;
using testing::put;
using testing::TemporaryFolder;

const std::string kText(64, 'a');

class CheckpointState : public ::testing::Test {
 protected:
  CheckpointState() {
    CheckpointWriter writer(run_.path(), 12);
    testing::put_checkpoint_files(writer);
    path_ = writer.finish({{"steps", 20},
                           {"tokens", 384},
                           {"updates", 12},
                           {"train_sha256", kText},
                           {"valid_sha256", ""},
                           {"val_loss", 1.25},
                           {"bits_per_byte", nullptr}});
    good_ = json::parse(get(file()));
  }

  [[nodiscard]] fs::path file() const { return path_ / "state.json"; }
  // As a version before the checksum wrote it: only the values themselves can be checked.
  void put_format_1(const std::function<void(json&)>& edit) const {
    json state = good_;
    state.erase("format");
    state.erase("state_sha256");
    edit(state);
    put(file(), state.dump(2));
  }

  TemporaryFolder run_;
  fs::path path_;
  json good_;
};

TEST_F(CheckpointState, NamesItsFormatAndHasAChecksumOfItsOwn) {
  EXPECT_EQ(good_.at("format"), 2);
  EXPECT_EQ(good_.at("state_sha256").get<std::string>().size(), 64U);
  EXPECT_EQ(verify_checkpoint(path_), std::nullopt);
  // The SHA-256 of the text with these 64 digits as zeros.
  std::string text = get(file());
  const auto digest = good_.at("state_sha256").get<std::string>();
  text.replace(text.find(digest), 64, 64, '0');
  EXPECT_EQ(sha256_hex(text), digest);
}

TEST_F(CheckpointState, EveryBitThatFallsOverIsNoticed) {
  const std::string text = get(file());
  for (size_t i = 0; i < text.size(); ++i) {
    std::string changed = text;
    changed[i] = static_cast<char>(changed[i] ^ (1 << i % 8));
    put(file(), changed);
    EXPECT_THROW((void)read_state(path_), DamagedCheckpoint) << "byte " << i << ": " << changed[i];
  }
}

TEST_F(CheckpointState, AChangedValueIsNoticed) {
  for (const char* key : {"step", "steps", "tokens", "updates", "format"}) {
    json state = good_;
    state[key] = state[key].get<int64_t>() + 1;
    put(file(), state.dump(2) + "\n");
    EXPECT_THAT(verify_checkpoint(path_), Optional(HasSubstr("does not match its checksum")))
        << key;
  }
  json state = good_;
  state.erase("state_sha256");
  put(file(), state.dump(2) + "\n");
  EXPECT_THAT(verify_checkpoint(path_), Optional(HasSubstr("does not match its checksum")));
}

TEST_F(CheckpointState, OfTheFormatBeforeTheChecksumIsRead) {
  put_format_1([](json&) {});
  EXPECT_EQ(read_state(path_).at("tokens"), 384);
  EXPECT_EQ(verify_checkpoint(path_), std::nullopt);
}

// Not damage: skipping it would repeat what a newer version has trained.
TEST_F(CheckpointState, OfANewerFormatIsRefused) {
  const std::string newer = "\"format\": 3";
  std::string text = get(file());
  const auto digest = good_.at("state_sha256").get<std::string>();
  text.replace(text.find("\"format\": 2"), newer.size(), newer);
  text.replace(text.find(digest), 64, 64, '0');
  text.replace(text.find(std::string(64, '0')), 64, sha256_hex(text));
  put(file(), text);
  for (const auto& look : {std::function([&] { (void)verify_checkpoint(path_); }),
                           std::function([&] { (void)newest_valid_checkpoint(run_.path()); }),
                           std::function([&] { (void)best_checkpoint(run_.path()); })}) {
    EXPECT_THAT(message_of<UserError>(look),
                AllOf(HasSubstr("given format 3"), HasSubstr("newer version")));
  }
}

struct WrongValue {
  const char* key;
  json value;
  const char* words;
};

TEST_F(CheckpointState, EveryWrongValueIsNamedWithItsKeyAndFile) {
  const json file_of = good_["files"]["config.json"];
  std::vector<WrongValue> cases = {
      {"step", "12", "'step'"},
      {"step", -12, "'step'"},
      {"step", 12.5, "'step'"},
      {"step", 18446744073709551615U, "'step'"},
      {"step", nullptr, "'step'"},
      {"step", 11, "says step 11, the folder is step_12"},
      {"steps", 11, "at least the step, 12"},
      {"steps", json::array({20}), "'steps' to be an integer of at least 0, given"},
      {"tokens", -1, "'tokens'"},
      {"tokens", "many", "'tokens'"},
      {"updates", 11, "'updates' to be the step, 12"},
      {"updates", true, "'updates'"},
      {"val_loss", "1.25", "'val_loss'"},
      {"bits_per_byte", json::object(), "'bits_per_byte' to be a number or null"},
      {"train_sha256", 7, "'train_sha256'"},
      {"valid_sha256", std::string(64, 'g'), "'valid_sha256'"},
      {"schedule_steps", "20", "'schedule_steps'"},
      {"schedule_steps", 0, "'schedule_steps' to be an integer of at least 1"},
      {"schedule_steps", 21, "'schedule_steps' to be at most the steps, 20"},
      {"format", "2", "state.json does not match its checksum"},
      {"files", json(), "lists no files"},
      {"files", json::array({1}), "lists no files"},
      {"files", json::object(), "lists other files than"},
  };
  for (const char* name : {"../x", "..", "notes.txt", ""}) {
    json files = good_["files"];
    files[name] = file_of;
    cases.push_back({"files", files, "lists other files than"});
  }
  for (const json& entry : {json(2), json{{"bytes", -1}, {"sha256", kText}},
                            json{{"bytes", 2}, {"sha256", "aa"}}, json{{"bytes", 2}}}) {
    json files = good_["files"];
    files["config.json"] = entry;
    cases.push_back({"files", files, "in a form that isn't ours"});
  }
  json fewer = good_["files"];
  fewer.erase("model.safetensors");  // so that nothing would check its bytes
  cases.push_back({"files", fewer, "lists other files than"});
  for (const WrongValue& c : cases) {
    put_format_1([&](json& state) { state[c.key] = c.value; });
    EXPECT_THAT(message_of<UserError>([&] { (void)read_state(path_); }),
                AllOf(HasSubstr(c.words), HasSubstr("state.json"), HasSubstr(path_.string())))
        << c.key << " = " << c.value;
    EXPECT_THAT(verify_checkpoint(path_), Optional(HasSubstr(c.words)));
  }
  put_format_1([](json& state) { state.erase("step"); });
  EXPECT_THAT(verify_checkpoint(path_), Optional(HasSubstr("'step' to be an integer")));
}

TEST_F(CheckpointState, OutsideARunTheFolderMayHaveAnyName) {
  for (const char* name : {"best model", "later-step_7", "step_12.old", "step_"}) {
    fs::copy(path_, run_ / name, fs::copy_options::recursive);
    EXPECT_EQ(verify_checkpoint(run_ / name), std::nullopt) << name;
  }
}

TEST_F(CheckpointState, OfASizeThatIsNotOursIsNotRead) {
  put(file(), std::string(2 << 20, ' ') + "{}");
  EXPECT_THAT(verify_checkpoint(path_), Optional(HasSubstr("expected at most")));
}

}  // namespace
}  // namespace wavroute
