// The rows of the table in criteria.h, each in the file of its name (output_loss and gram in ../output_loss.cpp).
#pragma once

#include "pruning/criteria.h"

namespace laptopdiff::pruning {

Criterion output_loss_row();
Criterion gram_row();

}  // namespace laptopdiff::pruning
