#include "runtime/non_finite.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace laptopdiff::runtime {
namespace {

// True where some element has all bits of `mask` set. Blocks of a fixed length are what the compiler vectorises without
// being asked to; memcpy because a file's tensors lie at any address.
template <typename Bits>
bool any_has_all(const void* elements, std::size_t count, Bits mask) {
  constexpr std::size_t kBlock = 4096 / sizeof(Bits);
  const auto* bytes = static_cast<const std::byte*>(elements);
  Bits block[kBlock] = {};
  Bits found = 0;
  for (std::size_t first = 0; first < count; first += kBlock) {
    if (count - first < kBlock) std::memset(block, 0, sizeof block);
    std::memcpy(block, bytes + first * sizeof(Bits), std::min(kBlock, count - first) * sizeof(Bits));
    for (std::size_t i = 0; i < kBlock; ++i) found |= static_cast<Bits>((block[i] & mask) == mask);
  }
  return found != 0;
}

}  // namespace

bool may_hold_non_finite(DType dtype, const void* elements, std::size_t count) {
  switch (dtype) {  // a NaN or Inf has an exponent of all ones; e4m3 has no Inf and one NaN a sign
    case DType::f8_e4m3: return any_has_all<std::uint8_t>(elements, count, 0x7f);
    case DType::f8_e5m2: return any_has_all<std::uint8_t>(elements, count, 0x7c);
    case DType::f16: return any_has_all<std::uint16_t>(elements, count, 0x7c00);
    case DType::bf16: return any_has_all<std::uint16_t>(elements, count, 0x7f80);
    case DType::f32: return any_has_all<std::uint32_t>(elements, count, 0x7f800000);
    case DType::f64: return any_has_all<std::uint64_t>(elements, count, 0x7ff0000000000000);
    default: return true;
  }
}

}  // namespace laptopdiff::runtime
