// Any bytes as a JSON document, as a document whose fields are read by type, and as the value of --set.
#include "runtime/config.h"
#include "runtime/json.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace laptopdiff;
using fuzz::accepts;
using runtime::Json;
using runtime::ObjectReader;

void read_every_type(const Json& value) {
  accepts([&] { ObjectReader::convert<bool>(value, "v"); });
  accepts([&] { ObjectReader::convert<int>(value, "v"); });
  accepts([&] { ObjectReader::convert<std::int64_t>(value, "v"); });
  accepts([&] { ObjectReader::convert<std::uint64_t>(value, "v"); });
  accepts([&] { ObjectReader::convert<double>(value, "v"); });
  accepts([&] { ObjectReader::convert<std::string>(value, "v"); });
  accepts([&] { ObjectReader::convert<std::vector<int>>(value, "v"); });
  accepts([&] { ObjectReader::convert<std::vector<double>>(value, "v"); });
  accepts([&] { ObjectReader::convert<std::vector<std::string>>(value, "v"); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = fuzz::text_of(data, size);
  Json document = Json::object();
  if (accepts([&] { document = runtime::parse_json(text, "input.json"); })) {
    const std::string printed = runtime::dump_json(document);
    const Json again = runtime::parse_json(printed, "printed.json");
    fuzz::require(again == document, "a document printed and read again is the same");
    fuzz::require(runtime::dump_json(again) == printed, "one document has one print");
    read_every_type(document);
    for (const auto& [key, value] : document.items()) read_every_type(value);
    accepts([&] {
      ObjectReader in(document, "input.json");
      in.get<int>("steps", 0);
      in.finish();
    });
  }
  accepts([&] { runtime::apply_setting(document, std::string(text)); });
  return 0;
}
