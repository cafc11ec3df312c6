#include "experiments/report/audit_rows.h"

#include "runtime/error.h"
#include "runtime/json.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::Json;
using runtime::ObjectReader;

constexpr const char* kFormat = "laptopdiff.audit/1";

std::optional<double> optional_number(ObjectReader& in, const std::string& key) {
  if (in.has(key)) return in.required<double>(key);
  in.ignore(key);
  return std::nullopt;
}

AuditedMask parse_mask(const Json& json, const std::string& where) {
  ObjectReader in(json, where);
  AuditedMask row;
  row.name = in.required<std::string>("name");
  row.kind = in.required<std::string>("kind");
  row.keep = in.required<double>("keep");
  row.removed = static_cast<int>(in.get<std::vector<std::string>>("removed", {}).size());
  row.additive = optional_number(in, "additive");
  row.gram = optional_number(in, "gram");
  if (in.has("why_null") && !in.has("true")) in.ignore("true");
  else row.true_loss = in.required<double>("true");
  row.standard_error = optional_number(in, "stderr").value_or(0);
  row.both_fitted = optional_number(in, "both_fitted");
  for (const char* unused : {"criterion", "additive_fitted", "gram_fitted", "why_null"}) in.ignore(unused);
  in.finish();
  return row;
}

AgreementNumbers parse_agreement(const Json& json, const std::string& where) {
  ObjectReader in(json, where);
  AgreementNumbers numbers;
  numbers.rows = in.get<int>("rows", 0);
  numbers.spearman = optional_number(in, "spearman");
  numbers.r2_log = optional_number(in, "r2_log");
  numbers.within_quarter = optional_number(in, "within_quarter");
  if (in.has("ratio")) {
    ObjectReader ratio(in.raw("ratio"), where + ".ratio");
    numbers.ratio_median = optional_number(ratio, "median");
    numbers.ratio_min = optional_number(ratio, "min");
    numbers.ratio_max = optional_number(ratio, "max");
  }
  return numbers;
}

}  // namespace

AuditFile read_audit(const std::filesystem::path& path) {
  const Json json = runtime::read_json(path);
  const std::string where = path.string();
  ObjectReader in(json, where);
  in.require_format(kFormat);
  const Json& rows = in.raw("rows");
  if (!rows.is_array()) throw input_error(where, ": `rows` must be a list");
  AuditFile audit;
  for (std::size_t i = 0; i < rows.size(); ++i)
    audit.rows.push_back(parse_mask(rows[i], cat(where, ": rows[", i, "]")));
  const Json& agreement = in.raw("agreement");
  if (agreement.is_object()) {
    for (const auto& [name, numbers] : agreement.items()) {
      audit.agreement[name] = parse_agreement(numbers, cat(where, ": agreement.", name));
    }
  }
  const Json& pairs = in.raw("strongest_pairs");
  for (std::size_t i = 0; pairs.is_array() && i < pairs.size(); ++i) {
    ObjectReader pair(pairs[i], cat(where, ": strongest_pairs[", i, "]"));
    audit.pairs.push_back({pair.required<std::string>("a"), pair.required<std::string>("b"),
                           pair.required<double>("inner"), pair.required<double>("cosine")});
    pair.finish();
  }
  return audit;
}

}  // namespace laptopdiff::report
