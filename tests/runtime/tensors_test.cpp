#include "runtime/tensors.h"

#include <torch/cuda.h>
#include <torch/types.h>

#include <cstring>
#include <limits>

#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::runtime {
namespace {

using test::thrown_by;

// Comparisons of c10 types stand in double parentheses: doctest would print them with c10's own toString, which is not
// what it expects.
bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.contiguous(), y = b.contiguous();
  return x.scalar_type() == y.scalar_type() && x.sizes() == y.sizes() &&
         std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

TEST_CASE("tensors of every type come back bit for bit") {
  const test::TemporaryFolder folder;
  TensorMap tensors;
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kInt, at::kLong, at::kShort,
                                    at::kChar, at::kByte, at::kBool, at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    tensors[c10::toString(type)] = at::arange(6, at::kFloat).reshape({2, 3}).to(type);
    CHECK((scalar_type(dtype_of(tensors[c10::toString(type)])) == type));
  }
  tensors["scalar"] = at::tensor(3.5f).reshape({});
  tensors["empty"] = at::empty({0, 4});
  write_tensors(folder / "m", tensors);
  const TensorMap back = read_tensors(folder / "m");
  REQUIRE(back.size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    CAPTURE(name);
    CHECK(same_bytes(back.at(name), tensor));
  }
}

TEST_CASE("a tensor that is not contiguous is written as it reads") {
  const test::TemporaryFolder folder;
  const at::Tensor tensor = at::arange(12, at::kFloat).reshape({3, 4}).t();
  write_tensors(folder / "m", {{"a", tensor}, {"b", tensor.slice(0, 1, 3)}});
  const TensorMap back = read_tensors(folder / "m");
  CHECK(same_bytes(back.at("a"), tensor));
  CHECK(same_bytes(back.at("b"), tensor.slice(0, 1, 3)));
}

TEST_CASE("a type that the format has no name for is refused") {
  CHECK_THROWS_WITH_AS(dtype_of(at::zeros({1}, at::kComplexFloat)), doctest::Contains("safetensors has no name for"),
                       c10::Error);
}

TEST_CASE("read tensors keep their file alive") {
  const test::TemporaryFolder folder;
  write_tensors(folder / "m", {{"a", at::arange(1000, at::kFloat)}});
  at::Tensor tensor = read_tensors(folder / "m").at("a");
  std::filesystem::remove(folder / "m");
  CHECK(tensor.sum().item<float>() == 499'500.0f);
}

TEST_CASE("data that is not aligned to its element is copied to where torch can read it") {
  const test::TemporaryFolder folder;
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  const float values[2] = {1.5f, -2.0f};
  bytes += header + "\x07" + std::string(reinterpret_cast<const char*>(values), sizeof values);
  REQUIRE(header.size() < 128);
  test::put_bytes(folder / "m", bytes);
  const TensorMap tensors = read_tensors(folder / "m");
  CHECK(tensors.at("a").item<int>() == 7);
  CHECK(reinterpret_cast<std::uintptr_t>(tensors.at("b").const_data_ptr()) % alignof(float) == 0);
  CHECK(at::equal(tensors.at("b"), at::tensor({1.5f, -2.0f})));
}

TEST_CASE("the device and the dtype are parsed, and what is absent or misspelt is wrong usage") {
  CHECK((parse_device("cpu") == at::Device(at::kCPU)));
  CHECK((parse_device("auto") == (torch::cuda::is_available() ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU))));
  for (const std::string text : {"", "gpu", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:1000"}) {
    CAPTURE(text);
    const auto thrown = thrown_by([&] { parse_device(text); });
    CHECK(thrown.code == ExitCode::usage);
    CHECK(thrown.says("--device " + text + ": expected auto, cpu, cuda or cuda:N"));
  }
  const auto absent = thrown_by([] { parse_device("cuda:99"); });
  CHECK(absent.code == ExitCode::usage);
  CHECK(absent.says("CUDA devices; `laptopdiff doctor` says more"));

  CHECK((parse_dtype("f32") == at::kFloat));
  CHECK((parse_dtype("bf16") == at::kBFloat16));
  CHECK((parse_dtype("f16") == at::kHalf));
  const auto unknown = thrown_by([] { parse_dtype("fp32"); });
  CHECK(unknown.code == ExitCode::usage);
  CHECK(unknown.message == "--dtype fp32: expected f32, bf16 or f16");
}

TEST_CASE("the hash of weights depends on names, types, shapes and values, not on memory") {
  const at::Tensor a = at::arange(6, at::kFloat).reshape({2, 3});
  const std::string hash = tensors_sha256({{"a", a}});
  CHECK(hash.size() == 64);
  CHECK(tensors_sha256({{"a", a.t().contiguous().t()}}) == hash);
  CHECK(tensors_sha256({{"b", a}}) != hash);
  CHECK(tensors_sha256({{"a", a.reshape({3, 2})}}) != hash);
  CHECK(tensors_sha256({{"a", a.view(at::kInt)}}) != hash);
  CHECK(tensors_sha256({{"a", a + 1}}) != hash);
  CHECK(tensors_sha256({{"a", a}, {"b", a}}) != hash);
}

TEST_CASE("tensors that hold NaN or Inf are named with their counts") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  CHECK(non_finite_tensors({{"a", at::ones({3})}, {"i", at::ones({3}, at::kLong)}, {"e", at::empty({0})}}).empty());
  const auto bad = non_finite_tensors(
      {{"a", at::tensor({1.0f, nan, nan})}, {"b", at::tensor({inf, -inf})}, {"c", at::tensor({nan}).to(at::kHalf)}});
  CHECK(bad == std::vector<std::string>{"a (2 NaN, 0 Inf)", "b (0 NaN, 2 Inf)", "c (1 NaN, 0 Inf)"});
}

TEST_CASE("large finite values whose sum overflows are not called infinite") {
  CHECK(non_finite_tensors({{"a", at::full({4}, 3e38f)}}).empty());
  CHECK(non_finite_tensors({{"d", at::full({2}, 1e300, at::kDouble)}}).empty());
}

TEST_CASE("NaN and Inf are found in every type of weights, and the largest finite value is neither") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  const std::pair<at::ScalarType, double> largest[] = {
      {at::kHalf, 65504.0},
      {at::kBFloat16, 3.3895313892515355e38},
      {at::kFloat, 3.4028234663852886e38},
      {at::kDouble, 1.797e308},
      {at::kFloat8_e4m3fn, 448.0},
      {at::kFloat8_e5m2, 57344.0},
  };
  for (const auto& [type, value] : largest) {
    CAPTURE(c10::toString(type));
    CHECK(non_finite_tensors({{"a", at::tensor({value, -value, 0.0}).to(type)}}).empty());
    CHECK(non_finite_tensors({{"a", at::tensor({0.0, nan}).to(type)}}) == std::vector<std::string>{"a (1 NaN, 0 Inf)"});
    if (type == at::kFloat8_e4m3fn) continue;  // has no Inf
    CHECK(non_finite_tensors({{"a", at::tensor({0.0, -inf}).to(type)}}) ==
          std::vector<std::string>{"a (0 NaN, 1 Inf)"});
  }
}

TEST_CASE("sizes read as lists") {
  CHECK(sizes_text(at::zeros({2, 3})) == "[2, 3]");
  CHECK(sizes_text(at::tensor(1.0f).reshape({})) == "[]");
}

}  // namespace
}  // namespace laptopdiff::runtime
