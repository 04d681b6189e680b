// The plain residual stream: h_{l+1} = h_l + u_l.
#include "residual/additive.h"
#include "residual/options.h"
#include "residual/schemes.h"

namespace wavroute::schemes {
namespace {

class Prenorm final : public AdditiveResidual {
 public:
  using AdditiveResidual::AdditiveResidual;

  [[nodiscard]] bool is_llama() const override { return true; }
};

std::unique_ptr<Residual> create(const Options& given, const ModelSize& size, double) {
  return std::make_unique<Prenorm>(with_defaults(given, {}, "prenorm"), size);
}

}  // namespace

SchemeInfo prenorm() { return {"prenorm", "the plain residual stream", {}, create}; }

}  // namespace wavroute::schemes
