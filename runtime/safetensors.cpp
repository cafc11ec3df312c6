#include "runtime/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <stdexcept>

#include "runtime/error.h"
#include "runtime/file.h"
#include "runtime/json.h"

namespace laptopdiff::runtime {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's bound
constexpr std::size_t kMaxRank = 16;

struct DTypeRow {
  DType dtype;
  std::string_view name;
  std::size_t size;
};
constexpr DTypeRow kDTypes[] = {
    {DType::boolean, "BOOL", 1},    {DType::u8, "U8", 1},   {DType::i8, "I8", 1},   {DType::f8_e4m3, "F8_E4M3", 1},
    {DType::f8_e5m2, "F8_E5M2", 1}, {DType::u16, "U16", 2}, {DType::i16, "I16", 2}, {DType::f16, "F16", 2},
    {DType::bf16, "BF16", 2},       {DType::u32, "U32", 4}, {DType::i32, "I32", 4}, {DType::f32, "F32", 4},
    {DType::u64, "U64", 8},         {DType::i64, "I64", 8}, {DType::f64, "F64", 8},
};

const DTypeRow& row(DType dtype) {
  return *std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const DTypeRow& r) { return r.dtype == dtype; });
}

// Product of the shape and the element size; refuses negative sizes and overflow.
std::size_t checked_bytes(const Shape& shape, DType dtype, const std::string& where) {
  if (shape.size() > kMaxRank)
    throw input_error(where, ": rank ", shape.size(), ", at most ", kMaxRank, " is accepted");
  std::size_t bytes = dtype_size(dtype);
  for (const std::int64_t size : shape) {
    if (size < 0) throw input_error(where, ": shape ", shape_text(shape), " has a negative size");
    if (__builtin_mul_overflow(bytes, static_cast<std::size_t>(size), &bytes)) {
      throw input_error(where, ": shape ", shape_text(shape), " overflows");
    }
  }
  return bytes;
}

std::uint64_t little_endian_u64(const std::byte* bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  return value;
}

}  // namespace

std::string_view dtype_name(DType dtype) { return row(dtype).name; }
std::size_t dtype_size(DType dtype) { return row(dtype).size; }

DType dtype_from_name(const std::string& name, const std::string& where) {
  for (const DTypeRow& r : kDTypes) {
    if (r.name == name) return r.dtype;
  }
  std::vector<std::string> known;
  for (const DTypeRow& r : kDTypes) known.emplace_back(r.name);
  throw input_error(where, ": dtype `", name.substr(0, 40), "` is not supported", did_you_mean(name, known));
}

std::string shape_text(const Shape& shape) {
  std::vector<std::string> sizes;
  for (const std::int64_t size : shape) sizes.push_back(std::to_string(size));
  return "[" + join(sizes) + "]";
}

bool is_pickled(const fs::path& path) {
  const fs::path extension = path.extension();
  return extension == ".ckpt" || extension == ".pt" || extension == ".pth" || extension == ".bin";
}

std::shared_ptr<const SafetensorsFile> SafetensorsFile::open(const fs::path& path) {
  if (is_pickled(path)) {
    throw input_error(path.string(),
                      ": is pickled, which can run code when read; convert it to .safetensors where you trust it "
                      "(safetensors.torch.save_file of its state dict)");
  }
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile());
  file->path_ = path;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not block
  if (fd < 0) throw input_error("cannot read ", path.string(), ": ", std::strerror(errno));
  struct stat info {};
  const bool regular = ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  if (!regular || info.st_size < 8) {
    ::close(fd);
    throw input_error(path.string(), regular ? ": too short for a safetensors file" : ": not a regular file");
  }
  file->size_ = static_cast<std::size_t>(info.st_size);
  void* map = ::mmap(nullptr, file->size_, PROT_READ, MAP_PRIVATE, fd, 0);
  const int map_errno = errno;
  ::close(fd);
  if (map == MAP_FAILED) throw resource_error("cannot map ", path.string(), ": ", std::strerror(map_errno));
  file->map_ = static_cast<const std::byte*>(map);
  file->parse();
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (map_ != nullptr) ::munmap(const_cast<std::byte*>(map_), size_);
}

void SafetensorsFile::parse() {
  const std::string where = path_.string();
  const std::uint64_t header_bytes = little_endian_u64(map_);
  if (header_bytes > kMaxHeaderBytes || header_bytes > size_ - 8) {
    throw input_error(where, ": header of ", header_bytes, " bytes in a file of ", size_,
                      " bytes; it is truncated or not a safetensors file");
  }
  const std::string_view text(reinterpret_cast<const char*>(map_ + 8), header_bytes);
  if (text.empty() || text.front() != '{') throw input_error(where, ": header does not start with `{`");
  const Json header = parse_json(text, where + " header");
  if (!header.is_object()) throw input_error(where, ": header is not an object");

  const std::byte* buffer = map_ + 8 + header_bytes;
  const std::size_t buffer_bytes = size_ - 8 - header_bytes;
  struct Span {
    std::uint64_t begin, end;
    std::string name;
  };
  std::vector<Span> spans;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      ObjectReader fields(entry, where + ": __metadata__");
      for (const auto& [key, value] : entry.items()) metadata_[key] = fields.required<std::string>(key);
      continue;
    }
    const std::string tensor = cat(where, ": tensor `", name.substr(0, 200), "`");
    ObjectReader fields(entry, tensor);
    TensorView view;
    view.dtype = dtype_from_name(fields.required<std::string>("dtype"), tensor);
    view.shape = fields.required<Shape>("shape");
    const Json& offsets = fields.raw("data_offsets");
    fields.finish();
    if (!offsets.is_array() || offsets.size() != 2) throw input_error(tensor, ": data_offsets must be [begin, end]");
    const auto begin = ObjectReader::convert<std::uint64_t>(offsets[0], tensor + ": data_offsets[0]");
    const auto end = ObjectReader::convert<std::uint64_t>(offsets[1], tensor + ": data_offsets[1]");
    view.bytes = checked_bytes(view.shape, view.dtype, tensor);
    if (begin > end || end > buffer_bytes) {
      throw input_error(tensor, ": bytes ", begin, " to ", end, " lie outside the ", buffer_bytes,
                        " bytes of data; the file is truncated");
    }
    if (end - begin != view.bytes) {
      throw input_error(tensor, ": ", dtype_name(view.dtype), " ", shape_text(view.shape), " needs ", view.bytes,
                        " bytes, data_offsets give ", end - begin);
    }
    view.data = buffer + begin;
    spans.push_back({begin, end, name});
    tensors_.emplace(name, std::move(view));
  }

  std::sort(spans.begin(), spans.end(),
            [](const Span& a, const Span& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  std::uint64_t expected = 0;
  for (const Span& span : spans) {
    if (span.begin != expected) {
      throw input_error(where, ": tensor `", span.name.substr(0, 200), "` starts at byte ", span.begin, ", expected ",
                        expected, span.begin < expected ? " (it overlaps another)" : " (a hole in the data)");
    }
    expected = span.end;
  }
  if (expected != buffer_bytes) {
    throw input_error(where, ": ", buffer_bytes, " bytes of data, the tensors cover ", expected);
  }
}

bool SafetensorsFile::has_below(std::string_view prefix) const {
  const auto first = tensors_.lower_bound(std::string(prefix));
  return first != tensors_.end() && first->first.starts_with(prefix);
}

void SafetensorsFile::release(const std::byte* data, std::size_t bytes) const {
  if (bytes == 0 || data < map_ || data + bytes > map_ + size_) return;
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t into = static_cast<std::size_t>(data - map_) % page;
  // Neighbours on the first and last page only have to be read again. Failure costs memory, nothing else.
  (void)::madvise(const_cast<std::byte*>(data - into), bytes + into, MADV_DONTNEED);
}

const TensorView& SafetensorsFile::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [key, view] : tensors_) names.push_back(key);
  throw input_error(path_.string(), ": no tensor `", name, "`", did_you_mean(name, names));
}

namespace {

struct Placed {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::size_t bytes = 0;
};

// Written by hand to keep the data order in the header, as the reference writer does.
std::string header_text(const std::vector<Placed>& order, const std::map<std::string, std::string>& metadata) {
  std::string header = "{";
  if (!metadata.empty()) header += "\"__metadata__\":" + Json(metadata).dump();
  std::size_t offset = 0;
  for (const Placed& tensor : order) {
    if (header.size() > 1) header += ",";
    header += cat(Json(tensor.name).dump(), ":{\"dtype\":\"", dtype_name(tensor.dtype),
                  "\",\"shape\":", Json(tensor.shape).dump(), ",\"data_offsets\":[", offset, ",", offset + tensor.bytes,
                  "]}");
    offset += tensor.bytes;
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

}  // namespace

void write_safetensors(const fs::path& path, const std::map<std::string, TensorLayout>& tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::function<void(const std::string& name, const ByteSink& sink)>& write) {
  std::vector<Placed> order;
  for (const auto& [name, layout] : tensors)
    order.push_back({name, layout.dtype, layout.shape, checked_bytes(layout.shape, layout.dtype, name)});
  std::stable_sort(order.begin(), order.end(),
                   [](const Placed& a, const Placed& b) { return dtype_size(a.dtype) > dtype_size(b.dtype); });
  const std::string header = header_text(order, metadata);
  write_file_via(path, [&](const fs::path& temporary) {
    std::ofstream out(temporary, std::ios::binary);
    std::uint64_t length = header.size();
    char bytes[8];
    for (char& byte : bytes) {
      byte = static_cast<char>(length & 0xff);
      length >>= 8;
    }
    out.write(bytes, sizeof bytes);
    out.write(header.data(), static_cast<std::streamsize>(header.size()));
    for (const Placed& tensor : order) {
      std::size_t written = 0;
      write(tensor.name, [&](const void* data, std::size_t count) {
        if (count > 0) out.write(static_cast<const char*>(data), static_cast<std::streamsize>(count));
        written += count;
      });
      if (written != tensor.bytes) {
        throw std::logic_error(
            cat("write_safetensors: ", tensor.name, " has ", tensor.bytes, " bytes, ", written, " were written"));
      }
    }
    out.flush();
    if (!out) throw resource_error("cannot write ", path.string(), ": ", std::strerror(errno));
  });
}

void write_safetensors(const fs::path& path, const std::map<std::string, TensorView>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::map<std::string, TensorLayout> layouts;
  for (const auto& [name, view] : tensors) layouts[name] = {view.dtype, view.shape};
  write_safetensors(path, layouts, metadata, [&](const std::string& name, const ByteSink& sink) {
    const TensorView& view = tensors.at(name);
    sink(view.data, view.bytes);
  });
}

}  // namespace laptopdiff::runtime
