// Any bytes as a safetensors file: every byte of every tensor is read, and what was read is written and read again.
#include <cstring>

#include "runtime/safetensors.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace laptopdiff;
using runtime::SafetensorsFile;

std::uint64_t sum_of_bytes(const SafetensorsFile& file) {
  std::uint64_t sum = 0;
  for (const auto& [name, tensor] : file.tensors()) {
    for (std::size_t i = 0; i < tensor.bytes; ++i) sum += std::to_integer<std::uint64_t>(tensor.data[i]);
  }
  return sum;
}

bool same_tensors(const SafetensorsFile& a, const SafetensorsFile& b) {
  if (a.metadata() != b.metadata() || a.tensors().size() != b.tensors().size()) return false;
  for (const auto& [name, tensor] : a.tensors()) {
    const auto& other = b.at(name);
    if (tensor.dtype != other.dtype || tensor.shape != other.shape || tensor.bytes != other.bytes) return false;
    if (tensor.bytes > 0 && std::memcmp(tensor.data, other.data, tensor.bytes) != 0) return false;
  }
  return true;
}

}  // namespace

// Lets the first eight bytes tell the header's true length, three times of four: by chance they never would.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  const std::size_t last_brace = fuzz::text_of(data, size).rfind('}');
  if (seed % 4 == 0 || last_brace == std::string_view::npos || last_brace < 8) return size;
  for (std::uint64_t length = last_brace - 7, i = 0; i < 8; ++i) data[i] = static_cast<std::uint8_t>(length >> (8 * i));
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto input = fuzz::scratch_folder() / "input.safetensors", output = fuzz::scratch_folder() / "o.safetensors";
  fuzz::put_file(input, fuzz::text_of(data, size));
  std::shared_ptr<const SafetensorsFile> file;
  if (!fuzz::accepts([&] { file = SafetensorsFile::open(input); })) return 0;
  fuzz::require(sum_of_bytes(*file) <= 255 * size, "tensors lie inside the file, each byte in one of them");
  runtime::write_safetensors(output, file->tensors(), file->metadata());
  fuzz::require(same_tensors(*file, *SafetensorsFile::open(output)), "tensors written and read again are the same");
  return 0;
}
