#pragma once
#include <cstddef>

#include "runtime/safetensors.h"

namespace laptopdiff::runtime {

// False where none of the `count` elements is NaN or Inf; true where one is, or where the type's bits do not tell.
// One pass at the speed of memory, on one core, so that a model is read as fast as the disk gives it.
bool may_hold_non_finite(DType dtype, const void* elements, std::size_t count);

}  // namespace laptopdiff::runtime
