// audit.json read back: predicted against true loss of masks.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace laptopdiff::report {

struct AuditedMask {
  std::string name, kind;  // kind: solver, random, preset
  double keep = 0;         // share of the parameters left
  int removed = 0;         // entries in its list of removals
  std::optional<double> additive, gram;
  std::optional<double> both_fitted;  // from both, corrected by masks that were measured
  std::optional<double> true_loss;    // none where the output was not finite
  double standard_error = 0;
};

struct AgreementNumbers {
  int rows = 0;
  std::optional<double> spearman, r2_log, within_quarter, ratio_median, ratio_min, ratio_max;
};

// Two units whose effects do not just add up.
struct InteractingPair {
  std::string a, b;
  double inner = 0, cosine = 0;
};

struct AuditFile {
  std::vector<AuditedMask> rows;
  std::map<std::string, AgreementNumbers> agreement;  // additive, gram, both_fitted; each also with _random
  std::vector<InteractingPair> pairs;                 // the strongest first
};

// Throws Error(bad_input).
AuditFile read_audit(const std::filesystem::path& path);

}  // namespace laptopdiff::report
