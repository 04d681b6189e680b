// GGUF files, written and read, and damaged ones: each is refused with its place.
#include "io/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "formats/foreign_model.h"
#include "formats/gguf_names.h"
#include "tests/temporary_folder.h"

namespace wavroute {
namespace {

using ::testing::ElementsAre;
using testing::get;
using ::testing::HasSubstr;
using testing::message_of;
using testing::put;
using testing::TemporaryFolder;

template <typename T>
std::string raw(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}
std::string text(const std::string& value) { return raw<uint64_t>(value.size()) + value; }
std::string head(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
  return "GGUF" + raw(version) + raw(tensors) + raw(keys);
}
// A tensor of type F32.
std::string tensor(const std::string& name, std::initializer_list<uint64_t> shape, uint64_t offset,
                   uint32_t type = 0) {
  std::string bytes = text(name) + raw(static_cast<uint32_t>(shape.size()));
  for (const uint64_t size : shape) bytes += raw(size);
  return bytes + raw(type) + raw(offset);
}

class Gguf : public ::testing::Test {
 protected:
  std::string refusal(const std::string& bytes) {
    put(folder_ / "m.gguf", bytes);
    return message_of<UserError>([&] { const GgufFile file(folder_ / "m.gguf"); });
  }
  TemporaryFolder folder_;
};

TEST_F(Gguf, WhatIsWrittenIsRead) {
  GgufWriter writer;
  writer.add("name", std::string("wörd"));
  writer.add("yes", true);
  writer.add_u32("count", 7);
  writer.add_f32("third", 0.5F);
  writer.add("texts", std::vector<std::string>{"a", "", "bc"});
  writer.add_i32s("kinds", std::vector<int32_t>{-1, 2});
  writer.add_f32s("scores", std::vector<float>{-1.5F, 0.25F});
  std::vector<float> values(64);
  std::iota(values.begin(), values.end(), -10.0F);
  const auto fill = [&](GgmlType type) {
    return [&values, type] { return quantize(type, values); };
  };
  writer.add_tensor("a", GgmlType::kF16, {2, 32}, fill(GgmlType::kF16));
  writer.add_tensor("b", GgmlType::kQ8_0, {64}, fill(GgmlType::kQ8_0));
  writer.write(folder_ / "m.gguf");

  const GgufFile file(folder_ / "m.gguf");
  EXPECT_EQ(*file.text("name"), "wörd");
  EXPECT_EQ(file.flag("yes"), true);
  EXPECT_EQ(file.integer("count"), 7);
  EXPECT_EQ(file.number("third"), 0.5);
  EXPECT_EQ(file.number("count"), 7.0);
  EXPECT_THAT(*file.texts("texts"), ElementsAre("a", "", "bc"));
  EXPECT_THAT(*file.integers("kinds"), ElementsAre(-1, 2));
  EXPECT_THAT(*file.numbers("scores"), ElementsAre(-1.5, 0.25));
  EXPECT_EQ(file.text("absent"), nullptr);
  EXPECT_THAT(file.tensors().at("a").shape, ElementsAre(2, 32));
  std::vector<float> read(64);
  file.read("a", read);
  EXPECT_EQ(read, values);
  EXPECT_THAT(message_of<UserError>([&] { (void)file.integer("name"); }), HasSubstr("name"));
}

TEST_F(Gguf, DamageIsNamed) {
  EXPECT_THAT(refusal(""), HasSubstr("GGUF"));
  EXPECT_THAT(refusal("GGUF"), HasSubstr("4 more bytes"));
  EXPECT_THAT(refusal(head(0, 0, 1)), HasSubstr("version 2 or 3"));
  EXPECT_THAT(refusal(head(0, 0, 0x03000000)), HasSubstr("little-endian"));
  EXPECT_THAT(refusal(head(UINT64_MAX, 0)), HasSubstr("at most"));
  EXPECT_THAT(refusal(head(0, UINT64_MAX / 2)), HasSubstr("at most"));
  EXPECT_THAT(refusal(head(0, 1) + raw(UINT64_MAX) + "12345"), HasSubstr("at most"));
  const std::string key = head(0, 1) + text("a key");
  EXPECT_THAT(refusal(key + raw<uint32_t>(13) + raw<uint64_t>(0)), HasSubstr("kind of value"));
  EXPECT_THAT(refusal(key + raw<uint32_t>(8) + raw<uint64_t>(9)), HasSubstr("text of at most 0"));
  // A list of lists could nest without end.
  EXPECT_THAT(refusal(key + raw<uint32_t>(9) + raw<uint32_t>(9) + raw<uint64_t>(1)),
              HasSubstr("a list of lists"));
  EXPECT_THAT(refusal(key + raw<uint32_t>(9) + raw<uint32_t>(4) + raw(uint64_t{1} << 62)),
              HasSubstr("at most 0 items"));
  const std::string yes = raw<uint32_t>(7) + "\1";
  EXPECT_THAT(refusal(head(0, 2) + text("k") + yes + text("k") + yes), HasSubstr("'k' twice"));
  const std::string aligned = text("general.alignment") + raw<uint32_t>(4);
  for (const uint32_t alignment : {0U, 3U, 1U << 30}) {
    EXPECT_THAT(refusal(head(0, 1) + aligned + raw(alignment)), HasSubstr("alignment"));
  }
}

TEST_F(Gguf, TensorsLieWithinTheFile) {
  const std::string end(64, '\0');
  EXPECT_THAT(refusal(head(1, 0) + tensor("t", {4}, 64) + end), HasSubstr("'t'"));
  EXPECT_THAT(refusal(head(1, 0) + tensor("t", {4}, UINT64_MAX - 7) + end), HasSubstr("'t'"));
  EXPECT_THAT(refusal(head(1, 0) + tensor("t", {uint64_t{1} << 39}, 0) + end), HasSubstr("'t'"));
  EXPECT_THAT(refusal(head(1, 0) + tensor("t", {uint64_t{1} << 32, uint64_t{1} << 32}, 0) + end),
              HasSubstr("2^40"));
  EXPECT_THAT(refusal(head(1, 0) + tensor("t", {0}, 0) + end), HasSubstr("2^40"));
  EXPECT_THAT(refusal(head(1, 0) + tensor("t", {}, 0) + end), HasSubstr("dimensions"));
  EXPECT_THAT(refusal(head(1, 0) + tensor("t", {1, 1, 1, 1, 1}, 0) + end), HasSubstr("dimensions"));
  EXPECT_THAT(refusal(head(1, 0) + tensor("t", {31}, 0, 8) + end), HasSubstr("whole blocks of 32"));
  EXPECT_THAT(refusal(head(2, 0) + tensor("t", {1}, 0) + tensor("t", {1}, 0) + end),
              HasSubstr("twice"));
}

// A Llama of one layer of width 4, each key and tensor changeable.
class GgufLlama : public Gguf {
 protected:
  void write() const {
    GgufWriter writer;
    for (const auto& [key, value] : keys_) {
      if (value > UINT32_MAX) writer.add(key, value);
      if (value >= 0 && value <= UINT32_MAX) writer.add_u32(key, static_cast<uint32_t>(value));
    }
    for (const auto& [key, value] : others_) writer.add(key, value);
    writer.add("general.architecture", architecture_);
    for (const auto& [name, shape] : tensors_) {
      int64_t numbers = 1;
      for (const int64_t size : shape) numbers *= size;
      const auto fill = [numbers] {
        return quantize(GgmlType::kF32, std::vector<float>(static_cast<size_t>(numbers), 0.5F));
      };
      writer.add_tensor(name, GgmlType::kF32, shape, fill);
    }
    writer.write(folder_ / "m.gguf");
  }
  std::string refused() const {
    write();
    return message_of<UserError>([&] { (void)open_gguf_model(folder_ / "m.gguf"); });
  }

  std::string architecture_ = "llama";
  std::map<std::string, GgufValue> others_;
  std::map<std::string, int64_t> keys_ = {{"llama.block_count", 1},
                                          {"llama.embedding_length", 4},
                                          {"llama.feed_forward_length", 6},
                                          {"llama.attention.head_count", 2},
                                          {"llama.attention.head_count_kv", 1},
                                          {"llama.context_length", 8}};
  std::map<std::string, std::vector<int64_t>> tensors_ = {
      {"token_embd.weight", {5, 4}},        {"output_norm.weight", {4}},
      {"blk.0.attn_norm.weight", {4}},      {"blk.0.attn_q.weight", {4, 4}},
      {"blk.0.attn_k.weight", {2, 4}},      {"blk.0.attn_v.weight", {2, 4}},
      {"blk.0.attn_output.weight", {4, 4}}, {"blk.0.ffn_norm.weight", {4}},
      {"blk.0.ffn_gate.weight", {6, 4}},    {"blk.0.ffn_up.weight", {6, 4}},
      {"blk.0.ffn_down.weight", {4, 6}}};
};

TEST_F(GgufLlama, WithoutAnOutputIsTied) {
  write();
  EXPECT_TRUE(open_gguf_model(folder_ / "m.gguf").model.tie_embeddings);
  tensors_["output.weight"] = {5, 4};
  write();
  EXPECT_FALSE(open_gguf_model(folder_ / "m.gguf").model.tie_embeddings);
}

TEST_F(GgufLlama, HeadsNeedNotDivideTheWidthWhereTheirOwnIsGiven) {
  keys_["llama.embedding_length"] = 64;
  keys_["llama.attention.head_count"] = 3;
  keys_["llama.attention.head_count_kv"] = 1;
  keys_["llama.attention.key_length"] = 32;
  tensors_ = {{"token_embd.weight", {5, 64}},         {"output_norm.weight", {64}},
              {"blk.0.attn_norm.weight", {64}},       {"blk.0.attn_q.weight", {96, 64}},
              {"blk.0.attn_k.weight", {32, 64}},      {"blk.0.attn_v.weight", {32, 64}},
              {"blk.0.attn_output.weight", {64, 96}}, {"blk.0.ffn_norm.weight", {64}},
              {"blk.0.ffn_gate.weight", {6, 64}},     {"blk.0.ffn_up.weight", {6, 64}},
              {"blk.0.ffn_down.weight", {64, 6}}};
  write();
  EXPECT_EQ(open_gguf_model(folder_ / "m.gguf").model.head_width(), 32);
  keys_.erase("llama.attention.key_length");
  EXPECT_THAT(refused(), HasSubstr("64 and 3 heads"));
}

// Nothing is allocated of a size that only a key claims.
TEST_F(GgufLlama, HeadsOfHostileWidthsAreRefused) {
  tensors_["rope_freqs.weight"] = {1};
  for (const int64_t width : {int64_t{0}, int64_t{1} << 34, INT64_MAX - 1}) {
    keys_["llama.attention.key_length"] = width;
    EXPECT_THAT(refused(), HasSubstr("m.gguf")) << width;
  }
}

TEST_F(GgufLlama, OfAnotherFunctionIsRefusedByName) {
  const auto keys = keys_;
  for (const auto& [key, value] :
       std::map<std::string, int64_t>{{"llama.block_count", -1},
                                      {"llama.block_count", 0},
                                      {"llama.attention.head_count", 3},
                                      {"llama.attention.head_count_kv", 0},
                                      {"llama.expert_count", 8},
                                      {"llama.rope.dimension_count", 1},
                                      {"llama.attention.key_length", 3}}) {
    keys_ = keys;
    keys_[key] = value;
    const std::string message = refused();
    EXPECT_THAT(message, HasSubstr("m.gguf")) << key;
  }
  keys_ = keys;
  tensors_["blk.0.attn_q_norm.weight"] = {2};
  EXPECT_THAT(refused(), HasSubstr("attn_q_norm"));
  tensors_.erase("blk.0.attn_q_norm.weight");
  tensors_["blk.0.ffn_up.weight"] = {6, 5};
  EXPECT_THAT(refused(), HasSubstr("blk.0.ffn_up.weight"));
  tensors_.erase("blk.0.ffn_up.weight");
  EXPECT_THAT(refused(), HasSubstr("blk.0.ffn_up.weight"));
  architecture_ = "gemma";
  EXPECT_THAT(refused(), HasSubstr("gemma"));
}

TEST_F(GgufLlama, KeysOfAnotherFunctionAreRefusedAndUnknownOnesNamed) {
  using Key = std::pair<std::string, GgufValue>;
  for (const Key& other : {Key{"llama.attention.causal", false},
                           {"llama.attention.clamp_kqv", 8.0},
                           {"llama.attn_logit_softcapping", 30.0},
                           {"llama.logit_scale", 2.0},
                           {"llama.rope.scaling.attn_factor", 1.5},
                           {"llama.rope.scaling.yarn_attn_factor", 0.5},
                           {"llama.rope.scaling.yarn_ext_factor", 1.0},
                           {"llama.rope.scaling.yarn_log_multiplier", 0.1}}) {
    others_ = {other};
    EXPECT_THAT(refused(), HasSubstr(other.first));
  }
  others_ = {{"llama.attention.causal", true},
             {"llama.logit_scale", 1.0},
             {"llama.rope.scaling.yarn_ext_factor", -1.0},
             {"llama.rope.scaling.attn_factor", 1.0},
             {"llama.vocab_size", int64_t{5}},
             {"general.name", std::string("m")}};
  write();
  EXPECT_THAT(open_gguf_model(folder_ / "m.gguf").ignored, ElementsAre());
  others_["llama.unheard_of"] = 1.0;
  write();
  EXPECT_THAT(open_gguf_model(folder_ / "m.gguf").ignored, ElementsAre("'llama.unheard_of'"));
}

}  // namespace
}  // namespace wavroute
