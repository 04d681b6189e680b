#include "kernels/cuda/rows.h"

#include "kernels/cuda/partial_sums.h"

namespace wavroute::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// The column of this thread, where `pieces` blocks share what is `index`.
struct Column {
  int64_t index, column;
  WAVROUTE_DEVICE explicit Column(int64_t pieces)
      : index(block() / pieces), column(block() % pieces * kThreads + thread()) {}
};
int64_t pieces_of(int64_t columns) { return (columns + kThreads - 1) / kThreads; }

// ---- biases ----

template <typename C>
WAVROUTE_KERNEL bias_rows(Grid<C> rows, const float* bias, int64_t width, int64_t pieces) {
  const Column at(pieces);
  if (at.column >= width) return;
  C* const number = rows[at.index] + at.column;
  put(to_float(*number) + bias[at.column], *number);
}

template <typename C>
WAVROUTE_KERNEL bias_parts(Grid<const C> rows, int64_t count, int64_t width, int64_t part_rows,
                           float* parts, int64_t pieces) {
  const Column at(pieces);
  if (at.column >= width) return;
  const int64_t first = at.index * part_rows;
  const int64_t last = first + part_rows < count ? first + part_rows : count;
  float sum = 0.0F;
  for (int64_t row = first; row < last; ++row) sum += to_float(rows[row][at.column]);
  parts[at.index * width + at.column] = sum;
}

// ---- rows of a table ----

// Equal ids are a run. Parts of kRun ids are added up at once; runs that go through several parts
// have a partial sum in each: at `head` where they began before it, else at `tail`.
constexpr int64_t kRun = 32;
int64_t run_parts(int64_t count) { return (count + kRun - 1) / kRun; }

struct RunPart {
  int64_t first, last;
  WAVROUTE_DEVICE RunPart(const AddRows& a, int64_t part)
      : first(part * kRun), last(first + kRun < a.count ? first + kRun : a.count) {}
  // Whether the run at the end goes on behind it.
  WAVROUTE_DEVICE bool goes_on(const AddRows& a) const {
    return last < a.count && a.ids[last] == a.ids[last - 1];
  }
  // Whether the run of `id` began before it.
  WAVROUTE_DEVICE bool began_before(const AddRows& a, int64_t id) const {
    return first > 0 && a.ids[first - 1] == id;
  }
};

WAVROUTE_KERNEL add_run_parts(AddRows a, float* heads, float* tails, int64_t pieces) {
  const Column at(pieces);
  if (at.column >= a.d) return;
  const RunPart part(a, at.index);
  bool began_before = part.began_before(a, a.ids[part.first]);
  float sum = 0.0F;
  for (int64_t i = part.first; i < part.last; ++i) {
    sum += a.rows[a.order[i]][at.column];
    const bool is_last = i + 1 == part.last;
    if (is_last ? part.goes_on(a) : a.ids[i + 1] == a.ids[i]) continue;
    if (began_before) {
      heads[at.index * a.d + at.column] = sum;
    } else {
      a.table[a.ids[i]][at.column] += sum;
    }
    began_before = false;
    sum = 0.0F;
  }
  if (part.goes_on(a)) (began_before ? heads : tails)[at.index * a.d + at.column] = sum;
}

// The runs that begin in a part and end in a later one.
WAVROUTE_KERNEL join_run_parts(AddRows a, const float* heads, const float* tails, int64_t pieces) {
  const Column at(pieces);
  if (at.column >= a.d) return;
  const RunPart begin(a, at.index);
  const int64_t id = a.ids[begin.last - 1];
  if (!begin.goes_on(a) || begin.began_before(a, id)) return;
  float sum = tails[at.index * a.d + at.column];
  for (int64_t index = at.index + 1;; ++index) {
    sum += heads[index * a.d + at.column];
    const RunPart part(a, index);
    if (a.ids[part.last - 1] != id || !part.goes_on(a)) break;
  }
  a.table[id][at.column] += sum;
}

}  // namespace

template <typename C>
void add_bias(const Grid<C>& rows, int64_t count, const float* bias, int64_t width, Stream stream) {
  const int64_t pieces = pieces_of(width);
  launch(bias_rows<C>, {count * pieces, kThreads, 0}, stream, rows, bias, width, pieces);
}

int64_t bias_grad_floats(int64_t count, int64_t width) { return part_count(count) * width; }
template <typename C>
void add_bias_grad(const Grid<const C>& rows, int64_t count, float* grad, int64_t width,
                   float* scratch, Stream stream) {
  const int64_t parts = part_count(count), pieces = pieces_of(width);
  launch(bias_parts<C>, {parts * pieces, kThreads, 0}, stream, rows, count, width,
         rows_of_part(count), scratch, pieces);
  add_parts_to(scratch, parts, width, {grad, width}, width, stream);
}

int64_t add_rows_floats(int64_t count, int64_t d) { return 2 * run_parts(count) * d; }
void add_rows(const AddRows& a, Stream stream) {
  const int64_t parts = run_parts(a.count), pieces = pieces_of(a.d);
  float *const heads = a.scratch, *const tails = a.scratch + parts * a.d;
  launch(add_run_parts, {parts * pieces, kThreads, 0}, stream, a, heads, tails, pieces);
  launch(join_run_parts, {parts * pieces, kThreads, 0}, stream, a, static_cast<const float*>(heads),
         static_cast<const float*>(tails), pieces);
}

template void add_bias(const Grid<float>&, int64_t, const float*, int64_t, Stream);
template void add_bias(const Grid<Bf16>&, int64_t, const float*, int64_t, Stream);
template void add_bias_grad(const Grid<const float>&, int64_t, float*, int64_t, float*, Stream);
template void add_bias_grad(const Grid<const Bf16>&, int64_t, float*, int64_t, float*, Stream);

}  // namespace wavroute::kernels::cuda
