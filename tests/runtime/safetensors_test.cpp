#include "runtime/safetensors.h"

#include <cstring>
#include <vector>

#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::runtime {
namespace {

using test::put_bytes;
using test::TemporaryFolder;
using test::thrown_by;

std::string file_bytes(const std::string& header, const std::string& data) {
  std::string bytes;
  for (std::uint64_t length = header.size(), i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xff);
  return bytes + header + data;
}

// What opening a file of these bytes throws. The messages name the file; the caller gives what they must also say.
test::Thrown opening_bytes(const std::string& bytes) {
  const TemporaryFolder folder;
  put_bytes(folder / "m.safetensors", bytes);
  auto thrown = thrown_by([&] { SafetensorsFile::open(folder / "m.safetensors"); });
  if (thrown.code != ExitCode::ok) CHECK(thrown.says((folder / "m.safetensors").string()));
  return thrown;
}
test::Thrown opening(const std::string& header, std::size_t data_bytes) {
  return opening_bytes(file_bytes(header, std::string(data_bytes, '\0')));
}

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

TensorView view(DType dtype, Shape shape, const std::vector<std::byte>& data) {
  return {dtype, std::move(shape), data.data(), data.size()};
}
std::vector<std::byte> counting(std::size_t bytes) {
  std::vector<std::byte> data(bytes);
  for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(i * 7 + 1);
  return data;
}

TEST_CASE("tensors come back with their names, types, shapes and bytes") {
  const TemporaryFolder folder;
  const auto weight = counting(24), bias = counting(6), mask = counting(5), scalar = counting(8);
  const std::map<std::string, TensorView> tensors{{"conv.weight", view(DType::f32, {2, 3}, weight)},
                                                  {"conv.bias", view(DType::bf16, {3}, bias)},
                                                  {"mask", view(DType::boolean, {5, 1}, mask)},
                                                  {"step", view(DType::i64, {}, scalar)}};
  write_safetensors(folder / "a/m.safetensors", tensors, {{"format", "pt"}, {"note", "a \"quoted\" ü"}});
  CHECK(test::entry_count(folder / "a") == 1);

  const auto file = SafetensorsFile::open(folder / "a/m.safetensors");
  CHECK(file->metadata() == std::map<std::string, std::string>{{"format", "pt"}, {"note", "a \"quoted\" ü"}});
  CHECK(file->path() == folder / "a/m.safetensors");
  REQUIRE(file->tensors().size() == tensors.size());
  for (const auto& [name, expected] : tensors) {
    const TensorView& got = file->at(name);
    CHECK(got.dtype == expected.dtype);
    CHECK(got.shape == expected.shape);
    REQUIRE(got.bytes == expected.bytes);
    CHECK(std::memcmp(got.data, expected.data, got.bytes) == 0);
  }
}

TEST_CASE("every dtype of the format survives a round trip") {
  const TemporaryFolder folder;
  std::map<std::string, TensorView> tensors;
  std::vector<std::vector<std::byte>> data;
  data.reserve(16);
  for (const DType dtype :
       {DType::boolean, DType::u8, DType::i8, DType::f8_e4m3, DType::f8_e5m2, DType::u16, DType::i16, DType::f16,
        DType::bf16, DType::u32, DType::i32, DType::f32, DType::u64, DType::i64, DType::f64}) {
    CHECK(dtype_from_name(std::string(dtype_name(dtype)), "x") == dtype);
    data.push_back(counting(3 * dtype_size(dtype)));
    tensors[std::string(dtype_name(dtype))] = view(dtype, {3}, data.back());
  }
  CHECK(tensors.size() == 15);
  write_safetensors(folder / "m", tensors);
  const auto file = SafetensorsFile::open(folder / "m");
  for (const auto& [name, expected] : tensors) {
    CHECK(dtype_name(file->at(name).dtype) == name);
    CHECK(std::memcmp(file->at(name).data, expected.data, expected.bytes) == 0);
  }
}

TEST_CASE("the file is laid out as the reference writer does: wide types first, then by name, header padded to 8") {
  const TemporaryFolder folder;
  const std::vector<std::byte> byte{std::byte{0xaa}}, word(8, std::byte{0xbb});
  write_safetensors(folder / "m", {{"a", view(DType::u8, {1}, byte)}, {"b", view(DType::i64, {1}, word)}});
  const std::string header =
      R"({"b":)" + tensor("I64", "[1]", "[0,8]") + R"(,"a":)" + tensor("U8", "[1]", "[8,9]") + "}";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  CHECK(test::get_bytes(folder / "m") == file_bytes(padded, std::string(8, '\xbb') + "\xaa"));
}

TEST_CASE("a file without tensors, and tensors without elements, are fine") {
  const TemporaryFolder folder;
  write_safetensors(folder / "none", {});
  CHECK(SafetensorsFile::open(folder / "none")->tensors().empty());

  write_safetensors(folder / "empty", {{"e", {DType::f32, {0, 3}, nullptr, 0}}});
  const auto file = SafetensorsFile::open(folder / "empty");
  CHECK(file->at("e").bytes == 0);
  CHECK(file->at("e").shape == Shape{0, 3});
  // An empty tensor may stand between two others.
  CHECK(opening(R"({"a":)" + tensor("U8", "[2]", "[0,2]") + R"(,"e":)" + tensor("U8", "[0]", "[2,2]") + R"(,"b":)" +
                    tensor("U8", "[1]", "[2,3]") + "}",
                3)
            .code == ExitCode::ok);
}

TEST_CASE("a 0-d tensor has one element") {
  CHECK(opening(R"({"s":)" + tensor("F32", "[]", "[0,4]") + "}", 4).code == ExitCode::ok);
  CHECK(opening(R"({"s":)" + tensor("F32", "[]", "[0,0]") + "}", 0).says("F32 [] needs 4 bytes, data_offsets give 0"));
}

TEST_CASE("tensors may stand in any order in the header, which may be padded with spaces") {
  CHECK(
      opening(R"({"b":)" + tensor("U8", "[1]", "[2,3]") + R"(,"a":)" + tensor("U8", "[2]", "[0,2]") + "}   ", 3).code ==
      ExitCode::ok);
}

TEST_CASE("a file that is no safetensors file is bad input") {
  CHECK(opening_bytes("").says("too short for a safetensors file"));
  CHECK(opening_bytes("1234567").says("too short for a safetensors file"));
  CHECK(opening_bytes("1234567").code == ExitCode::bad_input);
  CHECK(opening_bytes(std::string(8, '\0')).says("header does not start with `{`"));
  CHECK(opening("[]", 0).says("header does not start with `{`"));
  CHECK(opening(" {}", 0).says("header does not start with `{`"));
  CHECK(opening("{\"a\":", 0).says("header: not valid JSON"));
  CHECK(opening("{} x", 0).says("header: not valid JSON"));
  CHECK(opening(std::string("{}\0\0", 4), 0).says("header: not valid JSON"));
  CHECK(opening("{" + std::string(7, ' ') + "}", 0).code == ExitCode::ok);
}

TEST_CASE("a path that is no regular file is bad input") {
  const auto missing = thrown_by([] { SafetensorsFile::open("/nowhere/m.safetensors"); });
  CHECK(missing.code == ExitCode::bad_input);
  CHECK(missing.message == "cannot read /nowhere/m.safetensors: No such file or directory");
  const TemporaryFolder folder;
  CHECK(thrown_by([&] { SafetensorsFile::open(folder.path()); }).says("not a regular file"));
  CHECK(thrown_by([] { SafetensorsFile::open("/dev/null"); }).says("not a regular file"));
}

TEST_CASE("a header longer than the file or than the format's bound is refused before it is read") {
  const std::string good = file_bytes("{}      ", "");
  CHECK(opening_bytes(good).code == ExitCode::ok);
  CHECK(
      opening_bytes(good.substr(0, good.size() - 1)).says("header of 8 bytes in a file of 15 bytes; it is truncated"));
  CHECK(opening_bytes(std::string(8, '\xff') + "{}").says("header of 18446744073709551615 bytes"));
  std::string bound = file_bytes("{}", "");
  const std::uint64_t length = 100'000'001;
  std::memcpy(bound.data(), &length, sizeof length);
  CHECK(opening_bytes(bound).says("header of 100000001 bytes"));
}

TEST_CASE("a file that lacks its last bytes is refused, and so is one with bytes too many") {
  const std::string header = R"({"a":)" + tensor("F32", "[2]", "[0,8]") + "}";
  CHECK(opening(header, 8).code == ExitCode::ok);
  CHECK(opening(header, 7).says("tensor `a`: bytes 0 to 8 lie outside the 7 bytes of data; the file is truncated"));
  CHECK(opening(header, 0).says("the file is truncated"));
  CHECK(opening(header, 9).says("9 bytes of data, the tensors cover 8"));
  CHECK(opening("{}", 1).says("1 bytes of data, the tensors cover 0"));
}

TEST_CASE("offsets that do not fit the shape are refused") {
  const auto with = [](const char* shape, const char* offsets) {
    return opening(R"({"a":)" + tensor("F32", shape, offsets) + "}", 16);
  };
  CHECK(with("[4]", "[0,16]").code == ExitCode::ok);
  CHECK(with("[3]", "[0,16]").says("tensor `a`: F32 [3] needs 12 bytes, data_offsets give 16"));
  CHECK(with("[2,2]", "[0,15]").says("F32 [2, 2] needs 16 bytes, data_offsets give 15"));
  CHECK(with("[4]", "[16,0]").says("bytes 16 to 0 lie outside"));
  CHECK(with("[4]", "[16,32]").says("lie outside the 16 bytes of data"));
  CHECK(with("[4]", "[18446744073709551600,18446744073709551615]").says("lie outside"));
  CHECK(with("[4]", "[-1,15]").says("data_offsets[0] must not be negative"));
  CHECK(with("[4]", "[0,1e1]").says("data_offsets[1] must be an integer"));
  CHECK(with("[4]", "[0,18446744073709551616]").code == ExitCode::bad_input);
  CHECK(with("[4]", "[0]").says("data_offsets must be [begin, end]"));
  CHECK(with("[4]", "[0,8,16]").says("data_offsets must be [begin, end]"));
  CHECK(with("[4]", "16").says("data_offsets must be [begin, end]"));
  CHECK(with("[4]", "null").says("data_offsets must be [begin, end]"));
}

TEST_CASE("a shape that overflows, is negative or absurd is refused") {
  const auto with = [](const std::string& shape) {
    return opening(R"({"a":)" + tensor("F32", shape, "[0,0]") + "}", 0);
  };
  CHECK(with("[4294967296,4294967296]").says("overflows"));
  CHECK(with("[9223372036854775807]").says("overflows"));
  CHECK(with("[4611686018427387904]").says("overflows"));  // times 4 is 2^64: wraps to 0
  CHECK(with("[9223372036854775807,9223372036854775807,0]").says("overflows"));
  CHECK(with("[-1]").says("has a negative size"));
  CHECK(with("[0,-1]").says("has a negative size"));
  CHECK(with("[9223372036854775808]").says("is out of range"));
  CHECK(with("[1.0]").says("must be an integer"));
  CHECK(with("4").says("must be a list"));
  CHECK(with("[0,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]").says("rank 17, at most 16 is accepted"));
  CHECK(with("[0,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]").code == ExitCode::ok);
  std::string long_shape = "[0";
  for (int i = 0; i < 100'000; ++i) long_shape += ",1";
  CHECK(with(long_shape + "]").says("rank 100001"));
}

TEST_CASE("tensors that overlap or leave a hole are refused") {
  const auto two = [](const char* a, const char* b, std::size_t bytes) {
    return opening(R"({"a":)" + tensor("U8", "[4]", a) + R"(,"b":)" + tensor("U8", "[4]", b) + "}", bytes);
  };
  CHECK(two("[0,4]", "[4,8]", 8).code == ExitCode::ok);
  CHECK(two("[0,4]", "[2,6]", 6).says("tensor `b` starts at byte 2, expected 4 (it overlaps another)"));
  CHECK(two("[0,4]", "[0,4]", 4).says("it overlaps another"));
  CHECK(two("[0,4]", "[5,9]", 9).says("tensor `b` starts at byte 5, expected 4 (a hole in the data)"));
  CHECK(two("[1,5]", "[5,9]", 9).says("tensor `a` starts at byte 1, expected 0 (a hole in the data)"));
}

TEST_CASE("an unknown dtype is refused with the nearest known one") {
  const auto thrown = opening(R"({"a":)" + tensor("F31", "[1]", "[0,4]") + "}", 4);
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("tensor `a`: dtype `F31` is not supported (did you mean `F32`"));
  CHECK(opening(R"({"a":)" + tensor("f32", "[1]", "[0,4]") + "}", 4).says("dtype `f32` is not supported"));
  CHECK(opening(R"({"a":)" + tensor(std::string(5000, 'x'), "[1]", "[0,4]") + "}", 4).message.size() < 500);
}

TEST_CASE("an entry that is not a tensor's is refused") {
  CHECK(opening(R"({"a":3})", 0).says("tensor `a`: expected an object"));
  CHECK(opening(R"({"a":null})", 0).says("tensor `a`: expected an object"));
  CHECK(opening(R"({"a":{"shape":[],"data_offsets":[0,4]}})", 4).says("tensor `a`: `dtype` is missing"));
  CHECK(opening(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4).says("tensor `a`: `shape` is missing"));
  CHECK(opening(R"({"a":{"dtype":"F32","shape":[]}})", 4).says("data_offsets must be [begin, end]"));
  CHECK(opening(R"({"a":{"dtype":5,"shape":[],"data_offsets":[0,4]}})", 4).says("`dtype` must be a string"));
  CHECK(
      opening(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"stride":[1]}})", 4).says("unknown key `stride`"));
  const std::string entry = tensor("U8", "[1]", "[0,1]");
  CHECK(opening(R"({"a":)" + entry + R"(,"a":)" + entry + "}", 1).says("duplicate key `a`"));
}

TEST_CASE("metadata holds text only") {
  CHECK(opening(R"({"__metadata__":{"format":"pt"}})", 0).code == ExitCode::ok);
  CHECK(opening(R"({"__metadata__":{}})", 0).code == ExitCode::ok);
  CHECK(opening(R"({"__metadata__":{"epoch":3}})", 0).says("__metadata__: `epoch` must be a string"));
  CHECK(opening(R"({"__metadata__":[]})", 0).says("__metadata__: expected an object"));
}

TEST_CASE("a deep header is refused before it can overflow the stack") {
  CHECK(opening("{\"a\":" + std::string(200'000, '[') + std::string(200'000, ']') + "}", 0).says("nested deeper than"));
}

TEST_CASE("no cut and no changed byte of a good file can do more than be refused") {
  const TemporaryFolder folder;
  const auto weight = counting(24), bias = counting(6);
  write_safetensors(folder / "m", {{"w", view(DType::f32, {2, 3}, weight)}, {"b", view(DType::bf16, {3}, bias)}},
                    {{"format", "pt"}});
  const std::string good = test::get_bytes(folder / "m");
  const auto touch_all = [&](const std::string& bytes) {
    put_bytes(folder / "bad", bytes);
    return thrown_by([&] {
      const auto file = SafetensorsFile::open(folder / "bad");
      unsigned sum = 0;
      for (const auto& [name, t] : file->tensors()) {
        for (std::size_t i = 0; i < t.bytes; ++i) sum += std::to_integer<unsigned>(t.data[i]);
      }
      REQUIRE(sum < 1'000'000);
    });
  };
  for (std::size_t size = 0; size < good.size(); ++size)
    CHECK(touch_all(good.substr(0, size)).code == ExitCode::bad_input);
  for (std::size_t i = 0; i + 30 < good.size(); ++i) {
    for (const char byte : {'\0', '\xff', '"', '9', '}'}) {
      std::string bad = good;
      bad[i] = byte;
      const ExitCode code = touch_all(bad).code;
      const bool expected = code == ExitCode::ok || code == ExitCode::bad_input;
      CHECK(expected);
    }
  }
}

TEST_CASE("a tensor that is not there is named, with the nearest ones") {
  const TemporaryFolder folder;
  const auto data = counting(4);
  write_safetensors(folder / "m", {{"conv_in.weight", view(DType::f32, {1}, data)}});
  const auto file = SafetensorsFile::open(folder / "m");
  const auto thrown = thrown_by([&] { file->at("conv_in.weigth"); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("no tensor `conv_in.weigth` (did you mean `conv_in.weight`?)"));
}

TEST_CASE("an open file outlives its name") {
  const TemporaryFolder folder;
  const auto data = counting(8);
  write_safetensors(folder / "m", {{"a", view(DType::u8, {8}, data)}});
  const auto file = SafetensorsFile::open(folder / "m");
  write_safetensors(folder / "m", {{"b", view(DType::u8, {8}, counting(8))}});
  CHECK(std::memcmp(file->at("a").data, data.data(), 8) == 0);
}

TEST_CASE("a file that cannot be written is a matter of resources") {
  const TemporaryFolder folder;
  put_bytes(folder / "file", "x");
  const auto thrown = thrown_by([&] { write_safetensors(folder / "file/m", {}); });
  CHECK(thrown.code == ExitCode::resources);
  CHECK(thrown_by([] { write_safetensors("/proc/m.safetensors", {}); }).code == ExitCode::resources);
}

TEST_CASE("shapes read as lists") {
  CHECK(shape_text({}) == "[]");
  CHECK(shape_text({640, 320, 3, 3}) == "[640, 320, 3, 3]");
}

}  // namespace
}  // namespace laptopdiff::runtime
