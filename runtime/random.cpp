#include "runtime/random.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

namespace laptopdiff::runtime {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0];
    const std::uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

// The counter's words: block index, sample, step, and purpose (8 bits) with the high bits of sample and step (12 each),
// so that samples and steps up to 2^44 keep apart.
Stream::Stream(std::uint64_t seed, Purpose purpose, std::uint64_t step, std::uint64_t sample)
    : counter_{0, static_cast<std::uint32_t>(sample), static_cast<std::uint32_t>(step),
               static_cast<std::uint32_t>(purpose) | static_cast<std::uint32_t>((step >> 32) & 0xfff) << 8 |
                   static_cast<std::uint32_t>((sample >> 32) & 0xfff) << 20},
      key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)} {}

std::uint32_t Stream::next_u32() {
  if (used_ == 4) {
    block_ = philox4x32(counter_, key_);
    ++counter_[0];
    used_ = 0;
  }
  return block_[used_++];
}

float Stream::uniform() { return static_cast<float>(next_u32() >> 8) * 0x1p-24f; }

std::uint64_t Stream::below(std::uint64_t n) {
  // Rejection keeps it unbiased: values below 2^64 mod n are drawn again.
  const std::uint64_t reject_below = (0 - n) % n;
  for (;;) {
    const std::uint64_t high = next_u32();
    const std::uint64_t value = high << 32 | next_u32();
    if (value >= reject_below) return value % n;
  }
}

float Stream::normal() {
  if (std::exchange(has_spare_, false)) return spare_;
  const double u = (static_cast<double>(next_u32()) + 0.5) * 0x1p-32;
  const double angle = 2 * std::numbers::pi * ((static_cast<double>(next_u32()) + 0.5) * 0x1p-32);
  const double radius = std::sqrt(-2 * std::log(u));
  spare_ = static_cast<float>(radius * std::sin(angle));
  has_spare_ = true;
  return static_cast<float>(radius * std::cos(angle));
}

void Stream::fill_normal(std::span<float> out) {
  for (float& value : out) value = normal();
}

std::vector<std::int64_t> permutation(std::int64_t n, std::uint64_t seed, Purpose purpose, std::uint64_t step) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  Stream stream(seed, purpose, step);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[stream.below(i)]);
  return order;
}

}  // namespace laptopdiff::runtime
