// safetensors files: mapped for reading, streamed for writing. Knows no torch.
//
// Layout: u64 little-endian header length N, N bytes of JSON, then one data buffer without holes or overlaps. Every
// size in a header is checked before it is used: length against the file, shape times dtype against the offsets,
// offsets against the buffer. Format: https://github.com/huggingface/safetensors
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace laptopdiff::runtime {

enum class DType { boolean, u8, i8, f8_e4m3, f8_e5m2, u16, i16, f16, bf16, u32, i32, f32, u64, i64, f64 };

// The format's name ("F32", "BF16", ...) and back. dtype_from_name throws Error(bad_input) on an unknown name.
std::string_view dtype_name(DType dtype);
DType dtype_from_name(const std::string& name, const std::string& where);
std::size_t dtype_size(DType dtype);

using Shape = std::vector<std::int64_t>;

// "[640, 320, 3, 3]"
std::string shape_text(const Shape& shape);

// One tensor's bytes; it owns nothing and lives as long as its file.
struct TensorView {
  DType dtype = DType::f32;
  Shape shape;
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
};

// True for the extensions under which torch.save writes pickles (.ckpt, .pt, .pth, .bin).
bool is_pickled(const std::filesystem::path& path);

// A read-only mapped file. Tensors are views into it: nothing is copied, pages are read when touched.
class SafetensorsFile {
 public:
  // Throws Error(bad_input) with the reason for anything that breaks the format.
  static std::shared_ptr<const SafetensorsFile> open(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }

  // True where some tensor's name begins so.
  bool has_below(std::string_view prefix) const;

  // Gives the memory of these mapped bytes back; they are read from the file again where they are touched again.
  void release(const std::byte* data, std::size_t bytes) const;

  // Throws Error(bad_input) naming the near tensors where there is none of this name.
  const TensorView& at(const std::string& name) const;

 private:
  SafetensorsFile() = default;
  void parse();

  std::filesystem::path path_;
  const std::byte* map_ = nullptr;
  std::size_t size_ = 0;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Writes tensors (sorted by dtype size, then name, as the reference writer does) atomically.
// Throws Error(resources).
void write_safetensors(const std::filesystem::path& path, const std::map<std::string, TensorView>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// The same for tensors that are made one at a time: `write` is called for each in the file's order and gives its bytes,
// in as many calls of the sink as it likes. What `write` throws comes through; no file is left then.
struct TensorLayout {
  DType dtype = DType::f32;
  Shape shape;
};
using ByteSink = std::function<void(const void* data, std::size_t bytes)>;
void write_safetensors(const std::filesystem::path& path, const std::map<std::string, TensorLayout>& tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::function<void(const std::string& name, const ByteSink& sink)>& write);

}  // namespace laptopdiff::runtime
