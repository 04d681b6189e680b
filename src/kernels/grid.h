// Views of numbers in memory: a pointer and the distances that go with it.
#pragma once

#include <cstdint>
#include <type_traits>

namespace wavroute::kernels {

// Rows of numbers [rows, columns]. Consecutive numbers of a row are adjacent.
template <typename T>
struct Grid {
  T* at = nullptr;    // row 0; null: there are no rows
  int64_t pitch = 0;  // from the beginning of a row to that of the next, in numbers

  // Always inlined: a function that is not would be compiled for several instruction sets under one
  // name.
  [[gnu::always_inline]] constexpr T* operator[](int64_t row) const { return at + row * pitch; }
  // What is left without the rows before `row` and the columns before `column`.
  [[gnu::always_inline]] constexpr Grid from(int64_t row, int64_t column = 0) const {
    return {at + row * pitch + column, pitch};
  }
  [[gnu::always_inline]] constexpr explicit operator bool() const { return at != nullptr; }
  [[gnu::always_inline]] constexpr operator Grid<const T>() const requires(!std::is_const_v<T>) {
    return {at, pitch};
  }
};

// Grids of one shape [grids, rows, columns].
template <typename T>
struct Grids {
  T* at = nullptr;       // of grid 0; null: there are none
  int64_t distance = 0;  // from one grid to the next
  int64_t pitch = 0;     // from one row to the next

  [[gnu::always_inline]] constexpr Grid<T> operator[](int64_t grid) const {
    return {at + grid * distance, pitch};
  }
  [[gnu::always_inline]] constexpr explicit operator bool() const { return at != nullptr; }
};

}  // namespace wavroute::kernels
