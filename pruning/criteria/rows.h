// The rows of the table in criteria.h, each in the file of its name (output_loss and gram in ../output_loss.cpp).
#pragma once

#include "pruning/criteria.h"

namespace laptopdiff::pruning {

Criterion output_loss_row();
Criterion gram_row();
Criterion task_loss_row();
Criterion clip_score_row();
Criterion magnitude_row();
Criterion taylor_row();
Criterion fisher_row();
Criterion block_influence_row();
Criterion latent_shift_row();
Criterion random_row();

}  // namespace laptopdiff::pruning
