// Loops of our own for the CPU kernels: rows of floats, vectorised by the compiler for the processor that runs them.
#pragma once

#include <c10/util/BFloat16.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

// One copy of a function for each level of x86-64; the loader picks. Elsewhere, one copy for the build's own target.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define LAPTOPDIFF_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LAPTOPDIFF_CLONES
#endif

namespace laptopdiff::unet {

// Elements as the loops see them: floats, or the bits of a bf16.
template <typename T>
using RawOf = std::conditional_t<std::is_same_v<T, float>, float, std::uint16_t>;

inline float load(float value) { return value; }
inline float load(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
inline void store(float value, float& to) { to = value; }
// Rounds to nearest even and keeps NaN, as c10 does, in a form that compilers vectorise.
inline void store(float value, std::uint16_t& to) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  to = static_cast<std::uint16_t>(value != value ? 0x7fc0U : rounded);
}

// 2^x for x in [-126, 127], clamped outside, within 2 units in the last place of it; NaN stays NaN. x = n + r with r in
// [-1/2, 1/2], a polynomial for 2^r, and n added to the exponent. Adding 1.5 * 2^23 rounds to an integer in the low
// bits.
inline float fast_exp2(float x) {
  constexpr float kRound = 12582912.0F;
  x = x < -126.0F ? -126.0F : x;
  x = x > 127.0F ? 127.0F : x;
  const float shifted = x + kRound;
  const float r = x - (shifted - kRound);
  float p = 1.535336196e-4F;  // least largest error for degree 6, fitted
  p = p * r + 1.339887502e-3F;
  p = p * r + 9.618436918e-3F;
  p = p * r + 5.550332367e-2F;
  p = p * r + 2.402264774e-1F;
  p = p * r + 6.931471825e-1F;
  p = p * r + 1.0F;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(shifted) << 23));
}

constexpr float kLog2E = 1.44269504F;

// Sixteen lanes in as many registers as the processor needs for them. In and out by reference: how such a value is
// passed differs between the copies of a function.
constexpr std::int64_t kLanes = 16;
using Floats = float __attribute__((vector_size(64)));
using Words = std::uint32_t __attribute__((vector_size(64)));

using Halves = std::uint16_t __attribute__((vector_size(32)));

[[gnu::always_inline]] inline void load(const float* from, Floats& to) { std::memcpy(&to, from, sizeof(to)); }
[[gnu::always_inline]] inline void load(const std::uint16_t* from, Floats& to) {
  Halves bits;
  std::memcpy(&bits, from, sizeof(bits));
  to = __builtin_bit_cast(Floats, __builtin_convertvector(bits, Words) << 16);
}
[[gnu::always_inline]] inline void store(const Floats& value, float* to) { std::memcpy(to, &value, sizeof(value)); }
// Rounds to nearest, halves away from zero; NaN stays NaN unless its 23 bits are all set, which no arithmetic makes.
[[gnu::always_inline]] inline void store(const Floats& value, std::uint16_t* to) {
  const Halves rounded = __builtin_convertvector((__builtin_bit_cast(Words, value) + 0x8000U) >> 16, Halves);
  std::memcpy(to, &rounded, sizeof(rounded));
}

// 2^x for x <= 0; 2^-126 below that. For 16-bit results a polynomial within 2^-13 of it will do.
template <typename Raw>
[[gnu::always_inline]] inline void fast_exp2(Floats& x) {
  constexpr float kRound = 12582912.0F;
  const Floats lowest = Floats{} - 126.0F;
  const Floats clamped = lowest > x ? lowest : x;  // NaN stays
  const Floats shifted = clamped + kRound;
  const Floats r = clamped - (shifted - kRound);
  Floats p;  // least largest relative error, fitted
  if constexpr (sizeof(Raw) == 2) {
    p = r * 5.517177e-2F + 2.4261137e-1F;
    p = p * r + 6.9326097e-1F;
    p = p * r + 9.9992803e-1F;
  } else {
    p = r * 1.535336196e-4F + 1.339887502e-3F;
    p = p * r + 9.618436918e-3F;
    p = p * r + 5.550332367e-2F;
    p = p * r + 2.402264774e-1F;
    p = p * r + 6.931471825e-1F;
    p = p * r + 1.0F;
  }
  const Words bits = __builtin_bit_cast(Words, p) + (__builtin_bit_cast(Words, shifted) << 23);
  x = __builtin_bit_cast(Floats, bits);
}

}  // namespace laptopdiff::unet
