// Hugging Face folders in shards: where an index may lead.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "config/llama_config.h"
#include "formats/foreign_model.h"
#include "formats/new_folder.h"
#include "tests/temporary_folder.h"
#include "wavroute/safetensors.h"

namespace wavroute {
namespace {

using testing::get;
using ::testing::HasSubstr;
using testing::message_of;
using testing::names_in;
using testing::put;
using testing::TemporaryFolder;
using Json = nlohmann::json;

ModelConfig small() {
  ModelConfig m;
  m.layers = 1;
  m.width = 4;
  m.heads = m.kv_heads = 2;
  m.hidden = 6;
  m.tie_embeddings = true;
  return m;
}

class HfFolder : public ::testing::Test {
 protected:
  HfFolder() {
    put(folder_ / "m/config.json", llama_config_to_json(small(), 5).dump());
    std::vector<LazyTensor> first, second;
    for (const LlamaTensor& tensor : llama_tensors(small(), 5)) {
      const bool is_first = first.size() < 3;
      (is_first ? first : second)
          .push_back({tensor.name, Dtype::kF32, tensor.shape,
                      [](std::span<std::byte> bytes) { std::ranges::fill(bytes, std::byte{0}); }});
      index_["weight_map"][tensor.name] = is_first ? "1.safetensors" : "2.safetensors";
    }
    write_safetensors(folder_ / "m/1.safetensors", std::move(first));
    write_safetensors(folder_ / "m/2.safetensors", std::move(second));
  }
  std::string refusal(const Json& index) {
    put(folder_ / "m/model.safetensors.index.json", index.dump());
    return message_of<UserError>([&] { (void)open_hf_folder(folder_ / "m"); });
  }
  TemporaryFolder folder_;
  Json index_;
};

TEST_F(HfFolder, InShardsIsOneModel) {
  put(folder_ / "m/model.safetensors.index.json", index_.dump());
  NewFolder out(folder_ / "out/deep/");
  write_model_folder(open_hf_folder(folder_ / "m"), out.at(), {.configuration = out.name()});
  out.commit();
  const SafetensorsFile file(folder_ / "out/deep/model.safetensors");
  EXPECT_EQ(file.names().size(), index_["weight_map"].size());
  EXPECT_THAT(names_in(folder_ / "out"), ::testing::ElementsAre("deep"));
  EXPECT_THAT(get(folder_ / "out/deep/config.toml"), HasSubstr("init = \".\""));
}

TEST_F(HfFolder, NoIndexLeadsOutOfTheFolder) {
  put(folder_ / "x.safetensors", get(folder_ / "m/2.safetensors"));
  for (const char* name : {"../x.safetensors", "/dev/zero", "..", "", "a/b"}) {
    Json index = index_;
    index["weight_map"]["model.norm.weight"] = name;
    EXPECT_THAT(refusal(index), HasSubstr("name of a file in this folder")) << name;
  }
  Json index = index_;
  index["weight_map"]["model.norm.weight"] = 3;
  EXPECT_THAT(refusal(index), HasSubstr("model.norm.weight"));
  index["weight_map"] = "all";
  EXPECT_THAT(refusal(index), HasSubstr("weight_map"));
  index = index_;
  index["weight_map"]["model.norm.weight"] = "1.safetensors";
  EXPECT_THAT(refusal(index), HasSubstr("none of that name"));
}

TEST_F(HfFolder, WhatIsThereIsLeftAlone) {
  put(folder_ / "out/mine", "text");
  EXPECT_THAT(message_of<UserError>([&] { const NewFolder out(folder_ / "out"); }),
              HasSubstr("isn't there yet"));
  std::filesystem::create_symlink("nowhere", folder_ / "link");
  EXPECT_THROW(NewFolder(folder_ / "link"), UserError);
  EXPECT_THAT(names_in(folder_ / "out"), ::testing::ElementsAre("mine"));
}

TEST_F(HfFolder, WhatFailsLeavesNothing) {
  put(folder_ / "m/model.safetensors.index.json", index_.dump());
  ForeignModel model = open_hf_folder(folder_ / "m");
  model.tensors[2].read = [](std::span<float>) { throw Failure("a disk that fails"); };
  const auto write = [&] {
    NewFolder out(folder_ / "out");
    write_model_folder(model, out.at(), {});
    out.commit();
  };
  EXPECT_THROW(write(), Failure);
  EXPECT_THAT(names_in(folder_.path()), ::testing::ElementsAre("m"));
}

}  // namespace
}  // namespace wavroute
