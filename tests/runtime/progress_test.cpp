#include "runtime/progress.h"

#include <cstdint>
#include <limits>

#include <doctest/doctest.h>

namespace laptopdiff::runtime {
namespace {

TEST_CASE("durations read as people say them") {
  CHECK(duration_text(0) == "0.0 s");
  CHECK(duration_text(4.21) == "4.2 s");
  CHECK(duration_text(59.94) == "59.9 s");
  CHECK(duration_text(60) == "1 min 00 s");
  CHECK(duration_text(185) == "3 min 05 s");
  CHECK(duration_text(3599) == "59 min 59 s");
  CHECK(duration_text(3600) == "1 h 00 min");
  CHECK(duration_text(3725) == "1 h 02 min");
  CHECK(duration_text(100 * 3600.0) == "100 h 00 min");
}

TEST_CASE("a duration just under a minute is not sixty seconds") { CHECK(duration_text(59.97) == "1 min 00 s"); }

TEST_CASE("a clock that went back gives no negative duration") { CHECK(duration_text(-3) == "0.0 s"); }

TEST_CASE("a duration that no clock can give is still text") {
  CHECK(duration_text(std::numeric_limits<double>::quiet_NaN()) == "unknown");
  CHECK(duration_text(std::numeric_limits<double>::infinity()) == "unknown");
}

TEST_CASE("numbers are grouped by three") {
  CHECK(with_commas(0) == "0");
  CHECK(with_commas(999) == "999");
  CHECK(with_commas(1000) == "1,000");
  CHECK(with_commas(859520964) == "859,520,964");
  CHECK(with_commas(-1) == "-1");
  CHECK(with_commas(-999) == "-999");
  CHECK(with_commas(-1000) == "-1,000");
  CHECK(with_commas(std::numeric_limits<std::int64_t>::min()) == "-9,223,372,036,854,775,808");
}

TEST_CASE("the verbosity is what was set") {
  const Verbosity before = verbosity();
  set_verbosity(Verbosity::quiet);
  CHECK(verbosity() == Verbosity::quiet);
  {
    Progress progress("stage", 3, "samples");  // quiet: nothing on stderr, whatever is called
    progress.update(1, "note");
    progress.finish();
  }
  set_verbosity(before);
  CHECK(verbosity() == before);
}

}  // namespace
}  // namespace laptopdiff::runtime
