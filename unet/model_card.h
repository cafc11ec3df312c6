// The README.md of an exported model, as the Hugging Face hub reads it. Knows no torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "unet/export_plan.h"
#include "unet/spec.h"

namespace laptopdiff::unet {

struct CardFacts {
  std::string title;
  std::string base_model;          // empty: not said
  std::string file;                // of single-file exports; empty for folders
  bool pipeline = false;           // a whole pipeline, not a U-Net alone
  std::uint64_t weight_bytes = 0;  // of the U-Net as written
  Json made_by;                    // of this export
};

// The base that the card of an earlier export names; empty where `folder` has no card of ours.
std::string base_model_of_card(const std::filesystem::path& folder);

std::string model_card(const CardFacts& facts, const ExportPlan& plan, const Spec& spec);

}  // namespace laptopdiff::unet
