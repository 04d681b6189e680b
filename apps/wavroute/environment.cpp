#include "environment.h"

#include "bench/build_info.h"

namespace wavroute::app {

nlohmann::ordered_json environment(const Session& session) {
  const BuildInfo& build = build_info();
  return {{"wavroute", build.version},
          {"commit", build.commit},
          {"torch", build.torch_version},
          {"compiler", build.compiler},
          {"cpu", session.machine.cpu_model},
          {"isa", session.machine.instruction_sets},
          {"gpus", session.machine.gpus},
          {"cores", session.machine.cores},
          {"threads", session.config.train.threads},
          {"memory_bytes", session.machine.memory_total},
          {"device", session.config.train.device},
          {"precision", session.config.train.precision},
          {"corpus", session.corpus.description},
          {"train_sha256", session.corpus.train_sha256},
          {"valid_sha256", session.corpus.valid_sha256}};
}

}  // namespace wavroute::app
