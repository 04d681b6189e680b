#include "data/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "base/philox.h"
#include "base/utf8.h"
#include "data/characters.h"
#include "data/pieces.h"
#include "data/prepare_folder.h"
#include "data/prepare_state.h"
#include "data/recipes.h"
#include "data/shard.h"
#include "data/spill.h"
#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;

// Documents are dealt to so many buckets of each split; a shard is a run of them.
constexpr uint32_t kBuckets = 256;
constexpr uint64_t kDocumentBytes = 128;  // that a document of a shard takes beside its text

using Phase = PrepareProgress::Phase;

// One preparation: reads, then writes; `state` says how far it is.
class Preparation {
 public:
  Preparation(const PrepareOptions& options, std::vector<SourceFile> sources,
              std::shared_ptr<const Tokenizer> tokenizer, PrepareState state, fs::path work,
              const OnPrepareProgress& on_progress)
      : options_(options),
        sources_(std::move(sources)),
        tokenizer_(std::move(tokenizer)),
        state_(std::move(state)),
        work_(std::move(work)),
        on_progress_(on_progress),
        dealer_(static_cast<uint64_t>(options.seed), "deal"),
        spill_(work_ / "documents", kBuckets * kSplits, state_.spill_bytes, options.buffer_bytes) {
    if (!state_.characters.empty()) characters_.add(state_.characters, "state.json");
    for (const KnownSource& source : state_.sources) {
      // Without one of them the whole is not known.
      stored_total_ = source.bytes < 0 || stored_total_ < 0 ? -1 : stored_total_ + source.bytes;
    }
    for (const ManifestSource& source : state_.finished) {
      stored_before_ += static_cast<uint64_t>(source.bytes);
    }
  }

  // Nothing where it was stopped.
  std::optional<Manifest> run() {
    write_prepare_state(work_, state_);
    try {
      while (!state_.has_read_all()) read_next();
      if (!tokenizer_) tokenizer_ = make_chars_tokenizer(checked_characters(), "the sources");
      write_shards();
    } catch (const ReadingStopped&) {
      save();
      return std::nullopt;
    }
    return manifest();
  }

 private:
  // ---- reading ----

  void read_next() {
    const SourceFile& source = sources_[state_.finished.size()];
    SourceReader reader(source, options_.python, options_.is_stopped);
    const int64_t known = state_.documents;
    int64_t place = 0;
    PrepareState before;  // only its chain is used
    const auto check_known = [&] {
      if (before.chain == state_.chain && place == known) return;
      throw expected("the source that was read before the break", "another",
                     fmt::format("at {}", source.path),
                     "restore it, or remove the folder and prepare again");
    };
    const auto summary = reader.read([&](const SourceDocument& document, auto split) {
      ++place;
      if (place <= known) {  // read before a break
        if (!is_blank(document.text)) before.link(hash_document(document.text));
        if (place == known) check_known();
      } else {
        take(document, split);
        ++state_.documents;
        since_save_ += document.text.size();
        if (since_save_ >= options_.state_bytes) save();
      }
      since_report_ += document.text.size();
      if (std::exchange(since_report_, since_report_ % options_.progress_bytes) >=
          options_.progress_bytes) {
        report(Phase::kRead, stored_before_ + reader.stored_bytes(),
               static_cast<uint64_t>(std::max<int64_t>(0, stored_total_)));
      }
      return true;
    });
    if (!summary) throw ReadingStopped{};
    if (place < known) check_known();
    stored_before_ += summary->stored_bytes;
    state_.invalid_bytes += static_cast<int64_t>(summary->replaced_bytes);
    state_.finished.push_back({source.path, summary->sha256,
                               static_cast<int64_t>(summary->stored_bytes), state_.documents});
    state_.documents = 0;
    state_.chain = 0;
    if (state_.has_read_all()) save();
  }

  static bool is_blank(std::string_view text) {
    return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
  }

  void take(const SourceDocument& document, std::optional<SplitName> named) {
    const std::string_view text = document.text;
    if (is_blank(text)) {
      ++state_.empty;
      return;
    }
    state_.invalid_bytes += static_cast<int64_t>(count_invalid_bytes(text));
    check_characters(document);
    const DocumentHash hash = hash_document(text);
    state_.link(hash);
    const double place = static_cast<double>(hash.high >> 11) * 0x1.0p-53;  // in [0, 1)
    const bool is_valid = place < options_.valid;
    const SplitName split = named.value_or(is_valid ? SplitName::kValid : SplitName::kTrain);
    const auto row = static_cast<uint32_t>(split);
    const uint32_t bucket = dealer_.bits(hash.low)[0] % kBuckets;
    state_.text_bytes[row] += std::ssize(text);
    ++state_.text_documents[row];
    spill_.add(row * kBuckets + bucket, hash, text);
  }

  // A character that can't be encoded is found while its place is known.
  void check_characters(const SourceDocument& document) {
    const bool is_text =
        document.form == DocumentForm::kText || document.form == DocumentForm::kArticles;
    const std::string where = is_text ? std::string(document.source)
                                      : fmt::format("{}:{}", document.source, document.place);
    const uint64_t offset = is_text ? document.place : 0;
    if (!tokenizer_) {
      characters_.add(document.text, where, offset);
    } else if (!tokenizer_->spells_all()) {
      encode_in_pieces(*tokenizer_, document.text, where, offset, [](const auto& /*ids*/) {});
    }
  }

  void save() {
    if (!tokenizer_) state_.characters = characters_.text();
    state_.spill_bytes = spill_.flush(/*is_durable=*/true);
    write_prepare_state(work_, state_);
    since_save_ = 0;
  }

  void report(Phase phase, uint64_t done, uint64_t total) {
    int64_t documents = state_.documents;
    for (const ManifestSource& source : state_.finished) documents += source.documents;
    if (!on_progress_({phase, done, total, documents})) throw ReadingStopped{};
  }

  // ---- writing ----

  [[nodiscard]] std::string checked_characters() const {
    std::string text = characters_.text();
    if (text.empty()) throw_no_text();
    return text;
  }

  [[noreturn]] static void throw_no_text() {
    throw expected("documents to train on", "none", "in the sources",
                   "the sources are empty, or hold nothing but white space");
  }

  [[nodiscard]] uint32_t shards_of(size_t split) const {
    const uint64_t bytes = static_cast<uint64_t>(state_.text_bytes[split]) +
                           kDocumentBytes * static_cast<uint64_t>(state_.text_documents[split]);
    const uint64_t wanted = (bytes + options_.shard_bytes - 1) / options_.shard_bytes;
    return static_cast<uint32_t>(std::bit_ceil(std::clamp<uint64_t>(wanted, 1, kBuckets)));
  }

  void write_shards() {
    const std::string tokenizer = tokenizer_->to_json();
    write_file_atomic(work_ / "tokenizer.json", tokenizer);
    if (state_.text_bytes[0] == 0) {
      if (state_.text_bytes[1] + state_.text_bytes[2] == 0) throw_no_text();
      throw expected("documents to train on", "documents that are all for validation",
                     "in the sources",
                     "--separator says where a document ends; --valid 0 keeps all for training");
    }
    report_written();
    ThreadPool pool(options_.threads);
    for (size_t split = 0; split < kSplits; ++split) {
      if (state_.text_bytes[split] == 0) continue;
      const uint32_t shards = shards_of(split);
      while (state_.next_shard[split] < shards) {
        write_shard_of(static_cast<SplitName>(split), shards, pool);
        write_prepare_state(work_, state_);
        report_written();
      }
    }
  }

  void report_written() {
    uint64_t total = 0, done = 0;
    for (const int64_t bytes : state_.text_bytes) total += static_cast<uint64_t>(bytes);
    for (const ManifestFile& file : state_.files) done += static_cast<uint64_t>(file.counts.bytes);
    report(Phase::kWrite, done, total);
  }

  void write_shard_of(SplitName split, uint32_t shards, ThreadPool& pool) {
    const auto row = static_cast<size_t>(split);
    const auto shard = static_cast<uint32_t>(state_.next_shard[row]);
    ShardText text(options_.dedup);
    for (uint32_t bucket = 0; bucket < kBuckets; ++bucket) {
      if (bucket / (kBuckets / shards) != shard) continue;
      spill_.read(
          static_cast<uint32_t>(row) * kBuckets + bucket,
          [&](const DocumentHash& hash, std::string_view document) { text.add(hash, document); });
    }
    // The state is of whole shards: a stop in the midst of one leaves it as it was.
    const auto finish = [&] {
      ++state_.next_shard[row];
      state_.duplicates += text.duplicates();
    };
    if (text.is_empty()) return finish();
    const auto number = std::ranges::count(state_.files, split, &ManifestFile::split);
    const std::string name = fmt::format("{}_{:04}.bin", to_string(split), number);
    const auto documents = text.shuffled(static_cast<uint64_t>(options_.seed), name);
    ManifestFile file =
        write_shard(work_ / name, documents, *tokenizer_, pool, options_.is_stopped);
    file.name = name;
    file.split = split;
    state_.files.push_back(std::move(file));
    finish();
  }

  [[nodiscard]] Manifest manifest() const {
    Manifest made;
    made.settings = state_.settings;
    made.tokenizer = {std::string(tokenizer_->name()), tokenizer_->vocab_size(),
                      tokenizer_->hash()};
    if (const auto end = tokenizer_->end_token()) made.tokenizer.end_token = *end;
    made.sources = state_.finished;
    made.files = state_.files;
    made.duplicates = state_.duplicates;
    made.empty = state_.empty;
    made.invalid_bytes = state_.invalid_bytes;
    return made;
  }

  const PrepareOptions& options_;
  std::vector<SourceFile> sources_;
  std::shared_ptr<const Tokenizer> tokenizer_;  // null: "chars", of which the characters are read
  PrepareState state_;
  fs::path work_;
  const OnPrepareProgress& on_progress_;
  Philox dealer_;
  SpillFile spill_;
  CharacterSet characters_;
  int64_t stored_total_ = 0;
  uint64_t stored_before_ = 0, since_report_ = 0, since_save_ = 0;
};

void check_utf8(const std::string& text, const std::string& what) {
  if (is_utf8(text)) return;
  throw expected(fmt::format("{} in UTF-8", what), fmt::format("'{}'", text), {},
                 "the manifest names it, and JSON is UTF-8");
}

PrepareState wanted_state(const PrepareOptions& options, const std::vector<SourceFile>& sources,
                          const Tokenizer* tokenizer) {
  PrepareState state;
  state.settings = {options.recipe,
                    options.field.value_or("text"),
                    options.separator.value_or(std::string(kEndOfText)),
                    options.valid,
                    options.seed,
                    options.dedup};
  if (tokenizer != nullptr) state.tokenizer = tokenizer->hash();
  for (const SourceFile& source : sources) {
    const bool is_input = source.path == "-";
    state.sources.push_back(
        {source.path, is_input ? -1 : static_cast<int64_t>(fs::file_size(source.path))});
  }
  return state;
}

}  // namespace

std::optional<Manifest> prepare(const PrepareOptions& options,
                                const OnPrepareProgress& on_progress) {
  if (options.out.empty()) throw expected("a folder to make", "''", "for --out");
  SourceOptions source_options;
  source_options.field = options.field;
  source_options.separator = options.separator.value_or(source_options.separator);
  source_options.most_document_bytes = options.most_document_bytes;
  source_options.output = options.out;
  for (const std::string& source : options.sources) check_utf8(source, "a source's name");
  check_utf8(source_options.separator, "a separator");
  check_utf8(options.field.value_or(""), "a field's name");
  const Recipe* recipe = options.recipe.empty() ? nullptr : &find_recipe(options.recipe);
  std::vector<SourceFile> sources = recipe != nullptr
                                        ? recipe_sources(*recipe, options.sources, source_options)
                                        : list_sources(options.sources, source_options);
  for (const SourceFile& source : sources) check_utf8(source.path, "a source's name");
  const std::string kind =
      options.tokenizer.value_or(recipe != nullptr ? std::string(recipe->tokenizer) : "bytes");
  std::shared_ptr<const Tokenizer> tokenizer;
  if (kind == "bytes") {
    tokenizer = make_bytes_tokenizer();
  } else if (kind != "chars") {
    tokenizer = load_tokenizer(kind);
  }
  PrepareFolder folder(options.out, wanted_state(options, sources, tokenizer.get()),
                       options.resume);
  if (folder.complete()) return folder.complete();
  try {
    Preparation preparation(options, std::move(sources), std::move(tokenizer), folder.state(),
                            folder.work(), on_progress);
    std::optional<Manifest> manifest = preparation.run();
    if (manifest) folder.publish(*manifest);
    return manifest;
  } catch (const UserError&) {
    folder.give_up();
    throw;
  }
}

}  // namespace wavroute
