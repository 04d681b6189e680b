// What the plan for several devices (scaling/device_plan.h) has to know of a model.
#pragma once

#include "scaling/device_plan.h"
#include "train/forecast.h"
#include "wavroute/config.h"
#include "wavroute/decoder.h"

namespace wavroute {

// Of a model that need not be allocated. `config` is resolved but for micro_batch and what belongs
// to the scheme.
[[nodiscard]] scaling::ModelSizes model_sizes(const Decoder& model, const Config& config);

// Devices like the one that `forecast` is for.
[[nodiscard]] scaling::Training training_on_devices(const scaling::ModelSizes& model,
                                                    const Forecast& forecast, const Config& config);

}  // namespace wavroute
