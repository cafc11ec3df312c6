#include "distill/batch.h"

#include <ATen/Parallel.h>
#include <torch/types.h>

#include "runtime/random.h"

namespace laptopdiff::distill {

using runtime::Purpose;

std::int64_t BatchMaker::picture(std::int64_t sample) {
  const std::int64_t epoch = sample / cache_.count();
  if (epoch != epoch_) {
    order_ = runtime::permutation(cache_.count(), seed_, Purpose::data_order, static_cast<std::uint64_t>(epoch));
    epoch_ = epoch;
  }
  return order_[static_cast<std::size_t>(sample % cache_.count())];
}

at::Tensor BatchMaker::normals(std::uint32_t purpose, std::int64_t begin, std::int64_t end) const {
  std::vector<std::int64_t> shape = cache_.mean.sizes().vec();
  shape[0] = end - begin;
  at::Tensor values = at::empty(shape, at::kFloat);
  const auto each = static_cast<std::size_t>(values.numel() / shape[0]);
  float* out = values.data_ptr<float>();
  at::parallel_for(0, shape[0], 1, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t i = from; i < to; ++i) {
      runtime::Stream stream(seed_, static_cast<Purpose>(purpose), 0, static_cast<std::uint64_t>(begin + i));
      stream.fill_normal({out + static_cast<std::size_t>(i) * each, each});
    }
  });
  return values;
}

Batch BatchMaker::make(std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> rows, timesteps;
  for (std::int64_t sample = begin; sample < end; ++sample) {
    rows.push_back(picture(sample));
    runtime::Stream stream(seed_, Purpose::timestep, 0, static_cast<std::uint64_t>(sample));
    timesteps.push_back(first_ + static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(last_ - first_))));
  }
  const at::Tensor index = at::tensor(rows, at::kLong);
  at::Tensor clean = cache_.mean.index_select(0, index);
  if (cache_.std.defined()) {
    clean = clean +
            cache_.std.index_select(0, index) * normals(static_cast<std::uint32_t>(Purpose::latent_sample), begin, end);
  }
  clean = clean.to(device_);
  const at::Tensor noise = normals(static_cast<std::uint32_t>(Purpose::noise), begin, end).to(device_);
  Batch batch;
  batch.noise = noise;
  batch.inputs.timestep = at::tensor(timesteps, at::kLong).to(device_);
  batch.inputs.sample = diffusion::add_noise(schedule_, clean, noise, batch.inputs.timestep);
  batch.target = diffusion::training_target(schedule_, clean, noise, batch.inputs.timestep);
  if (cache_.texts.defined()) {
    const at::Tensor captions = cache_.text_of.index_select(0, index);
    batch.inputs.encoder_hidden_states = cache_.texts.index_select(0, captions).to(device_);
    if (cache_.pooled.defined()) batch.inputs.text_embeds = cache_.pooled.index_select(0, captions).to(device_);
    if (cache_.time_ids.defined()) batch.inputs.time_ids = cache_.time_ids.to(device_).expand({end - begin, -1});
  }
  return batch;
}

}  // namespace laptopdiff::distill
