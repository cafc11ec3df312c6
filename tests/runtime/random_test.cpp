// Known answers: the Random123 library's kat_vectors for philox4x32-10 (Salmon et al., SC'11).
#include "runtime/random.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include <doctest/doctest.h>

namespace laptopdiff::runtime {
namespace {

using Words = std::array<std::uint32_t, 4>;

std::vector<std::uint32_t> words(Stream stream, int count) {
  std::vector<std::uint32_t> out;
  for (int i = 0; i < count; ++i) out.push_back(stream.next_u32());
  return out;
}

TEST_CASE("philox agrees with the published vectors") {
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint32_t kOnes = 0xffffffff;
  CHECK(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a stream's words are philox blocks of its counter and key, in order") {
  const auto purpose = static_cast<std::uint32_t>(Purpose::test);
  const Stream stream(0x1122334455667788, Purpose::test, 7, 9);
  const auto got = words(stream, 8);
  const auto first = philox4x32({0, 9, 7, purpose}, {0x55667788, 0x11223344});
  const auto second = philox4x32({1, 9, 7, purpose}, {0x55667788, 0x11223344});
  CHECK(std::equal(first.begin(), first.end(), got.begin()));
  CHECK(std::equal(second.begin(), second.end(), got.begin() + 4));
}

TEST_CASE("a copy of a stream replays it, also in the middle of a block and of a pair of normals") {
  Stream stream(1, Purpose::test);
  stream.next_u32();
  stream.normal();
  Stream copy = stream;
  for (int i = 0; i < 9; ++i) {
    CHECK(copy.normal() == stream.normal());
    CHECK(copy.next_u32() == stream.next_u32());
  }
}

TEST_CASE("streams of different seed, purpose, step or sample differ") {
  const std::vector<Stream> streams{
      Stream(1, Purpose::noise, 2, 3),
      Stream(2, Purpose::noise, 2, 3),
      Stream(1, Purpose::timestep, 2, 3),
      Stream(1, Purpose::noise, 3, 2),
      Stream(1, Purpose::noise, 2, 4),
      Stream(1ull << 32 | 1, Purpose::noise, 2, 3),
      Stream(1, Purpose::noise, 2 | 1ull << 32, 3),
      Stream(1, Purpose::noise, 2, 3 | 1ull << 32),
      Stream(1, Purpose::noise, 2 | 1ull << 43, 3),
      Stream(1, Purpose::noise, 2, 3 | 1ull << 43),
  };
  std::set<std::vector<std::uint32_t>> seen;
  for (const Stream& stream : streams) seen.insert(words(stream, 4));
  CHECK(seen.size() == streams.size());
}

TEST_CASE("uniform is in [0, 1) with the mean and variance of the uniform law") {
  Stream stream(3, Purpose::test);
  constexpr int kDraws = 100'000;
  double sum = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const float u = stream.uniform();
    REQUIRE(u >= 0.0f);
    REQUIRE(u < 1.0f);
    sum += u;
    squares += double{u} * u;
  }
  // Four standard errors of the mean are 4 * sqrt(1/12 / n) = 0.0037.
  CHECK(std::abs(sum / kDraws - 0.5) < 0.004);
  CHECK(std::abs(squares / kDraws - 1.0 / 3) < 0.004);
}

TEST_CASE("below covers its range evenly") {
  for (const std::uint64_t n : {1, 2, 3, 7, 10}) {
    Stream stream(4, Purpose::test, n);
    std::vector<int> counts(n);
    constexpr int kDraws = 20'000;
    for (int i = 0; i < kDraws; ++i) {
      const std::uint64_t value = stream.below(n);
      REQUIRE(value < n);
      ++counts[value];
    }
    const double expected = static_cast<double>(kDraws) / static_cast<double>(n);
    for (const int count : counts) CHECK(std::abs(count - expected) < 5 * std::sqrt(expected));
  }
}

TEST_CASE("below has no bias where the range does not divide 2^64") {
  // For n = 3 * 2^62 a plain remainder would give the lowest quarter of 2^64 twice: values below 2^62 would come half
  // of the time instead of a third.
  constexpr std::uint64_t kRange = 3ull << 62;
  Stream stream(5, Purpose::test);
  int low = 0;
  constexpr int kDraws = 20'000;
  for (int i = 0; i < kDraws; ++i) low += stream.below(kRange) < (1ull << 62) ? 1 : 0;
  CHECK(std::abs(static_cast<double>(low) / kDraws - 1.0 / 3) < 0.02);
}

TEST_CASE("normal has the moments of the standard normal law, and is finite") {
  Stream stream(6, Purpose::noise);
  constexpr int kDraws = 200'000;
  double sum = 0, squares = 0, fourths = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double z = stream.normal();
    REQUIRE(std::isfinite(z));
    sum += z;
    squares += z * z;
    fourths += z * z * z * z;
  }
  CHECK(std::abs(sum / kDraws) < 0.01);
  CHECK(std::abs(squares / kDraws - 1) < 0.02);
  CHECK(std::abs(fourths / kDraws - 3) < 0.1);
}

TEST_CASE("fill_normal gives the same numbers however it is cut") {
  std::vector<float> whole(101), pieces(101);
  Stream(7, Purpose::noise, 1, 2).fill_normal(whole);
  Stream stream(7, Purpose::noise, 1, 2);
  std::size_t done = 0;
  for (const std::size_t count : {1, 2, 5, 32, 61}) {
    stream.fill_normal(std::span(pieces).subspan(done, count));
    done += count;
  }
  CHECK(done == whole.size());
  CHECK(whole == pieces);
}

TEST_CASE("one sample's draws do not depend on the samples drawn before it") {
  std::vector<float> alone(16), among(16);
  Stream(8, Purpose::noise, 5, 3).fill_normal(alone);
  for (std::uint64_t sample = 0; sample < 4; ++sample) Stream(8, Purpose::noise, 5, sample).fill_normal(among);
  CHECK(alone == among);
}

TEST_CASE("a permutation holds every number once") {
  for (const std::int64_t n : {0, 1, 2, 5, 1000}) {
    auto order = permutation(n, 9, Purpose::data_order, 0);
    REQUIRE(order.size() == static_cast<std::size_t>(n));
    std::sort(order.begin(), order.end());
    std::vector<std::int64_t> expected(static_cast<std::size_t>(n));
    std::iota(expected.begin(), expected.end(), std::int64_t{0});
    CHECK(order == expected);
  }
}

TEST_CASE("permutations are functions of their arguments, and all orders are equally likely") {
  CHECK(permutation(50, 1, Purpose::data_order, 2) == permutation(50, 1, Purpose::data_order, 2));
  CHECK(permutation(50, 1, Purpose::data_order, 2) != permutation(50, 1, Purpose::data_order, 3));
  CHECK(permutation(50, 1, Purpose::data_order, 2) != permutation(50, 2, Purpose::data_order, 2));
  CHECK(permutation(50, 1, Purpose::data_order, 2) != permutation(50, 1, Purpose::random_mask, 2));

  std::map<std::vector<std::int64_t>, int> counts;
  constexpr int kDraws = 6000;
  for (int step = 0; step < kDraws; ++step)
    ++counts[permutation(3, 1, Purpose::test, static_cast<std::uint64_t>(step))];
  CHECK(counts.size() == 6);
  for (const auto& [order, count] : counts) CHECK(std::abs(count - kDraws / 6) < 150);  // five standard deviations
}

}  // namespace
}  // namespace laptopdiff::runtime
