// Attention by the textbook formula, in double precision: the reference for the kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/attention.h"

namespace wavroute::kernels {

inline size_t qkv_size(const AttentionShape& s) {
  return static_cast<size_t>(s.batch * s.length * s.row());
}
inline size_t y_size(const AttentionShape& s) {
  return static_cast<size_t>(s.batch * s.length * s.heads * s.width);
}

// RoPE's angles in double precision: the kernels get them rounded.
inline std::vector<float> table(const AttentionShape& s, double (*function)(double)) {
  std::vector<float> values;
  for (int64_t t = 0; t < s.length; ++t) {
    for (int64_t i = 0; i < s.width / 2; ++i) {
      const double frequency =
          std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(s.width));
      values.push_back(static_cast<float>(function(static_cast<double>(t) * frequency)));
    }
  }
  return values;
}

// The textbook formula in double.
class Reference {
 public:
  Reference(const AttentionShape& shape, std::vector<double> qkv)
      : s_(shape),
        qkv_(std::move(qkv)),
        cos_(table(shape, std::cos)),
        sin_(table(shape, std::sin)) {
    y.assign(y_size(s_), 0);
    for_rows([&](int64_t b, int64_t h, int64_t t) {
      const std::vector<double> p = probabilities(b, h, t);
      for (int64_t j = 0; j <= t; ++j) {
        for (int64_t c = 0; c < s_.width; ++c) {
          y[out(b, h, t) + at(c)] += p[at(j)] * qkv_[in(b, value_head(h), j) + at(c)];
        }
      }
    });
  }

  std::vector<double> y;    // [B, T, H w]
  std::vector<double> lse;  // [B, H, T]

  // d(sum of y * dy) / d qkv
  [[nodiscard]] std::vector<double> gradient(const std::vector<double>& dy) {
    std::vector<double> turned(qkv_.size(), 0);  // of the rotated queries and keys
    for_rows([&](int64_t b, int64_t h, int64_t t) {
      const std::vector<double> p = probabilities(b, h, t);
      std::vector<double> dp(p.size(), 0);
      double mean = 0;
      for (int64_t j = 0; j <= t; ++j) {
        for (int64_t c = 0; c < s_.width; ++c) {
          const double d = dy[out(b, h, t) + at(c)];
          dp[at(j)] += d * qkv_[in(b, value_head(h), j) + at(c)];
          turned[in(b, value_head(h), j) + at(c)] += p[at(j)] * d;
        }
        mean += p[at(j)] * dp[at(j)];
      }
      const std::vector<double> q = rotated(b, h, t);
      for (int64_t j = 0; j <= t; ++j) {
        const double ds = p[at(j)] * (dp[at(j)] - mean) / std::sqrt(s_.width);
        const std::vector<double> k = rotated(b, key_head(h), j);
        for (int64_t c = 0; c < s_.width; ++c) {
          turned[in(b, h, t) + at(c)] += ds * k[at(c)];
          turned[in(b, key_head(h), j) + at(c)] += ds * q[at(c)];
        }
      }
    });
    for (int64_t b = 0; b < s_.batch; ++b) {
      for (int64_t t = 0; t < s_.length; ++t) {
        for (int64_t h = 0; h < s_.heads + s_.kv_heads; ++h) turn(turned, in(b, h, t), t, -1);
      }
    }
    return turned;
  }

 private:
  static size_t at(int64_t i) { return static_cast<size_t>(i); }
  [[nodiscard]] size_t in(int64_t b, int64_t head, int64_t t) const {
    return at((b * s_.length + t) * s_.row() + head * s_.width);
  }
  [[nodiscard]] size_t out(int64_t b, int64_t h, int64_t t) const {
    return at(((b * s_.length + t) * s_.heads + h) * s_.width);
  }
  [[nodiscard]] int64_t key_head(int64_t h) const { return s_.heads + h * s_.kv_heads / s_.heads; }
  [[nodiscard]] int64_t value_head(int64_t h) const { return key_head(h) + s_.kv_heads; }

  template <typename Body>
  void for_rows(Body body) {
    lse.clear();
    for (int64_t b = 0; b < s_.batch; ++b) {
      for (int64_t h = 0; h < s_.heads; ++h) {
        for (int64_t t = 0; t < s_.length; ++t) body(b, h, t);
      }
    }
  }
  // (a, b) -> (a cos - b sin, b cos + a sin) for component i of both halves; sign -1 inverts it.
  void turn(std::vector<double>& values, size_t first, int64_t t, double sign) const {
    const int64_t half = s_.width / 2;
    for (int64_t i = 0; i < half; ++i) {
      const double cos = cos_[at(t * half + i)], sin = sign * sin_[at(t * half + i)];
      double& a = values[first + at(i)];
      double& b = values[first + at(half + i)];
      const double before = a;
      a = before * cos - b * sin;
      b = b * cos + before * sin;
    }
  }
  [[nodiscard]] std::vector<double> rotated(int64_t b, int64_t head, int64_t t) const {
    const auto first = qkv_.begin() + static_cast<int64_t>(in(b, head, t));
    std::vector<double> row(first, first + s_.width);
    turn(row, 0, t, 1);
    return row;
  }
  // Of keys 0..t; appends to lse.
  std::vector<double> probabilities(int64_t b, int64_t h, int64_t t) {
    const std::vector<double> q = rotated(b, h, t);
    std::vector<double> p;
    for (int64_t j = 0; j <= t; ++j) {
      const std::vector<double> k = rotated(b, key_head(h), j);
      double score = 0;
      for (int64_t c = 0; c < s_.width; ++c) score += q[at(c)] * k[at(c)];
      p.push_back(score / std::sqrt(s_.width));
    }
    const double largest = *std::max_element(p.begin(), p.end());
    double total = 0;
    for (const double score : p) total += std::exp(score - largest);
    lse.push_back(largest + std::log(total));
    for (double& score : p) score = std::exp(score - lse.back());
    return p;
  }

  AttentionShape s_;
  std::vector<double> qkv_;
  std::vector<float> cos_, sin_;
};

}  // namespace wavroute::kernels
