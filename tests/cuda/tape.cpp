#include "tests/cuda/tape.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <algorithm>
#include <set>
#include <string>

#include "kernels/cuda/emulator.h"

namespace wavroute::testing {

// The tape that is being written.
class Recorder {
 public:
  explicit Recorder(Tape& tape) : tape_(tape), before_(now) {
    now = this;
    kernels::cuda::emulator::set_recorder(
        [this](std::function<void()> launch) { tape_.steps_.push_back(std::move(launch)); });
  }
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;
  ~Recorder() {
    kernels::cuda::emulator::set_recorder(nullptr);
    now = before_;
  }
  void add(std::function<void()> step) { tape_.steps_.push_back(std::move(step)); }
  void hold(const std::vector<at::Tensor>& tensors) {
    tape_.memory_.insert(tape_.memory_.end(), tensors.begin(), tensors.end());
  }
  // Memory that was made by the work.
  void hold_own(const std::vector<at::Tensor>& tensors) {
    hold(tensors);
    for (const at::Tensor& x : tensors) own_.insert(x.storage().unsafeGetStorageImpl());
  }
  [[nodiscard]] bool is_own(const at::Tensor& x) const {
    return own_.contains(x.storage().unsafeGetStorageImpl());
  }

  static thread_local Recorder* now;
  int depth = 0;  // operators that are made of others, in each other

 private:
  Tape& tape_;
  Recorder* before_;
  std::set<const void*> own_;
};
thread_local Recorder* Recorder::now = nullptr;

namespace {

constexpr auto kKey = c10::DispatchKey::TESTING_ONLY_GenericMode;

std::vector<at::Tensor> tensors_of(at::ArrayRef<c10::IValue> values) {
  std::vector<at::Tensor> tensors;
  const auto add = [&](const at::Tensor& x) {
    if (x.defined()) tensors.push_back(x);
  };
  for (const c10::IValue& value : values) {
    if (value.isTensor()) add(value.toTensor());
    if (value.isTensorList()) {
      for (const at::Tensor& x : value.toTensorVector()) add(x);
    } else if (value.isList()) {  // of tensors that may be missing
      for (const c10::IValue& x : value.toListRef()) {
        if (x.isTensor()) add(x.toTensor());
      }
    }
  }
  return tensors;
}

bool shares_memory(const at::Tensor& x, const std::vector<at::Tensor>& others) {
  return std::ranges::any_of(others, [&](const at::Tensor& y) { return x.is_alias_of(y); });
}

// Of `made` into `to`, whatever autograd thinks of them.
void copy_all(const std::vector<at::Tensor>& made, const std::vector<at::Tensor>& to) {
  for (size_t i = 0; i < to.size(); ++i) {
    if (!to[i].is_alias_of(made[i])) to[i].detach().copy_(made[i].detach());
  }
}

// `is_inner`: called by another operator, whose copies are to where the tensor is.
bool waits(const std::string& name, const c10::FunctionSchema& schema,
           at::ArrayRef<c10::IValue> arguments, bool is_inner) {
  static const std::set<std::string> kWaiting = {"aten::item",
                                                 "aten::_local_scalar_dense",
                                                 "aten::is_nonzero",
                                                 "aten::equal",
                                                 "aten::nonzero",
                                                 "aten::allclose",
                                                 "aten::masked_select",
                                                 "aten::nonzero_numpy",
                                                 "aten::_unique",
                                                 "aten::_unique2",
                                                 "aten::unique_dim",
                                                 "aten::bincount",
                                                 "aten::cpu",
                                                 "aten::cuda",
                                                 "aten::repeat_interleave"};
  if (kWaiting.contains(name)) return true;
  if (is_inner || (name != "aten::to" && name != "aten::_to_copy")) return false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (schema.arguments()[i].name() == "device" && !arguments[i].isNone()) return true;
  }
  return false;
}

// Whether it changes what a tensor is besides its numbers, so that the host code needs it done.
bool is_done_at_once(const std::string& name) {
  static const std::set<std::string> kNames = {
      "aten::requires_grad_", "aten::detach_",  "aten::resize_",    "aten::set_",       "aten::t_",
      "aten::squeeze_",       "aten::_version", "aten::unsqueeze_", "aten::retain_grad"};
  return kNames.contains(name);
}

bool is_written(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}
std::vector<at::Tensor> written_of(const c10::FunctionSchema& schema,
                                   const torch::jit::Stack& arguments) {
  torch::jit::Stack written;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (is_written(schema.arguments()[i])) written.push_back(arguments[i]);
  }
  return tensors_of(written);
}
// What an operator returns that gives what it wrote to: the arguments themselves.
torch::jit::Stack written_results(const c10::FunctionSchema& schema,
                                  const torch::jit::Stack& arguments) {
  torch::jit::Stack results;
  for (const c10::Argument& result : schema.returns()) {
    for (size_t i = 0; i < arguments.size(); ++i) {
      const c10::Argument& argument = schema.arguments()[i];
      if (!is_written(argument) || result.alias_info() == nullptr) continue;
      if (argument.alias_info()->beforeSets() != result.alias_info()->beforeSets()) continue;
      results.push_back(arguments[i]);
      break;
    }
  }
  return results;
}

void write_down(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  Recorder* const recorder = Recorder::now;
  const c10::FunctionSchema& schema = op.schema();
  const std::string& name = schema.operator_name().name;
  const size_t count = schema.arguments().size();
  const torch::jit::Stack arguments(stack->end() - static_cast<std::ptrdiff_t>(count),
                                    stack->end());
  TORCH_CHECK(!waits(name, schema, arguments, recorder->depth > 0),
              "recorded work waits for the device: ", name);

  // What is made of other operators is written down as these: autograd keeps tensors of theirs.
  constexpr auto kComposite = c10::DispatchKey::CompositeImplicitAutograd;
  if (op.hasKernelForDispatchKey(kComposite)) {
    ++recorder->depth;
    op.callBoxedForDispatchKey(kComposite, *stack);
    --recorder->depth;  // work that throws is not written down any further
    return;
  }
  const c10::impl::ExcludeDispatchKeyGuard guard(kKey);

  const auto again = [op, arguments] {
    torch::jit::Stack own = arguments;
    op.callBoxed(own);
    return own;
  };
  if (const std::vector<at::Tensor> written = written_of(schema, arguments);
      !written.empty() && !is_done_at_once(name)) {
    recorder->hold(tensors_of(arguments));
    recorder->add([again] { static_cast<void>(again()); });
    // What was there before stays as it is. The rest is the work's own: done, later operators that
    // run meanwhile find numbers, and autograd sees it.
    if (std::ranges::all_of(written, [&](const at::Tensor& x) { return recorder->is_own(x); })) {
      return op.callBoxed(stack);
    }
    torch::jit::Stack results = written_results(schema, arguments);
    stack->resize(stack->size() - count);
    stack->insert(stack->end(), results.begin(), results.end());
    return;
  }
  op.callBoxed(stack);
  const size_t first = stack->size() - schema.returns().size();
  const std::vector<at::Tensor> before = tensors_of(arguments);
  const std::vector<at::Tensor> made = tensors_of(at::ArrayRef<c10::IValue>(*stack).slice(first));
  // Views, and memory whose numbers are not set.
  if (std::ranges::all_of(made, [&](const at::Tensor& x) { return shares_memory(x, before); })) {
    return recorder->hold(made);
  }
  recorder->hold_own(made);
  if (name.starts_with("aten::empty") || name.starts_with("aten::new_empty")) return;
  recorder->hold(before);
  recorder->add([again, made] {
    const torch::jit::Stack results = again();
    copy_all(tensors_of(results), made);
  });
}

}  // namespace

Tape::Tape(const std::function<void()>& work) {
  const Recorder recorder(*this);
  const c10::impl::IncludeDispatchKeyGuard guard(kKey);
  work();
}
Tape::~Tape() = default;

void Tape::replay() {
  const at::NoGradGuard no_grad;
  for (const std::function<void()>& step : steps_) step();
}

std::vector<at::Tensor> as_one_operator(const std::function<std::vector<at::Tensor>()>& work) {
  if (Recorder::now == nullptr) return work();
  const c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  std::vector<at::Tensor> made = work();
  Recorder::now->hold_own(made);
  Recorder::now->add([work, made] { copy_all(work(), made); });
  return made;
}

}  // namespace wavroute::testing

TORCH_LIBRARY_IMPL(_, TESTING_ONLY_GenericMode, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&wavroute::testing::write_down>());
}
