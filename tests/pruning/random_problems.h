// Seeded random instances for the solver tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "pruning/solvers/problem.h"
#include "runtime/random.h"

namespace laptopdiff::pruning {

struct RandomShape {
  int least_items = 1;
  int most_items = 11;
  int budgets = 1;
  bool groups = true;
  int largest_group = 4;
  bool whole_costs = true;
  bool fixed = false;
  bool negative_gains = false;
  bool ties = false;  // few distinct gains and costs, many of them zero
};

using Draws = runtime::Stream;

inline bool respects_fixed(const Problem& problem, const Mask& mask) {
  return std::all_of(problem.fixed.begin(), problem.fixed.end(), [&](const Fixed& fixed) {
    return mask[fixed.item] == (fixed.decision == Decision::remove ? 1 : 0);
  });
}

inline Item random_item(const RandomShape& shape, const std::string& name, double scale, Draws& draws) {
  Item item{name, 0, {}, {}};
  // Multiples of 1/256, so that sums in any order are the same and ties are ties.
  item.gain = scale * (shape.ties ? double(draws.below(3)) : double(draws.below(2560)) / 256);
  if (shape.negative_gains && draws.below(3) == 0) item.gain = -item.gain;
  for (int d = 0; d < shape.budgets; ++d) {
    double cost = shape.ties ? double(draws.below(3)) : double(draws.below(100));
    if (!shape.whole_costs) cost += draws.uniform();
    item.cost.push_back(scale * cost);
  }
  return item;
}

// Consecutive items in groups, most with an `all` of about the sum of its members, as shells are.
inline void add_random_groups(Problem& problem, const RandomShape& shape, Draws& draws) {
  int first = 0;
  const int items = static_cast<int>(problem.items.size());
  while (first < items) {
    const int size =
        std::min<int>(1 + static_cast<int>(draws.below(std::uint64_t(shape.largest_group))), items - first);
    if (draws.below(3) > 0) {
      Group group;
      for (int i = first; i < first + size; ++i) group.members.push_back(i);
      if (draws.below(5) > 0) group.all = random_item(shape, "all" + std::to_string(first), size, draws);
      problem.groups.push_back(group);
    }
    first += size;
  }
}

inline Problem random_problem(const RandomShape& shape, std::uint64_t seed) {
  Draws draws(seed, runtime::Purpose::test, shape.budgets, shape.most_items);
  Problem problem;
  const int items =
      shape.least_items + static_cast<int>(draws.below(std::uint64_t(shape.most_items - shape.least_items + 1)));
  for (int d = 0; d < shape.budgets; ++d) problem.budgets.push_back({"budget" + std::to_string(d), 0, 0});
  for (int i = 0; i < items; ++i) problem.items.push_back(random_item(shape, "item" + std::to_string(i), 1, draws));
  if (shape.groups) add_random_groups(problem, shape, draws);
  for (int i = 0; shape.fixed && i < items; ++i) {
    if (draws.below(5) == 0) problem.fixed.push_back({i, draws.below(2) ? Decision::keep : Decision::remove});
  }
  const std::vector<double> total = freed_by(problem, Mask(items, 1));
  for (int d = 0; d < shape.budgets; ++d) {
    problem.budgets[d].total = total[d];
    problem.budgets[d].must_free = std::floor(total[d] * draws.uniform() * (shape.fixed ? 0.7 : 0.9));
  }
  return problem;
}

// The shape of SDXL's U-Net: 17 ResNets, 70 transformer blocks in 11 shells of 2 or 10, all costs distinct.
inline Problem sdxl_problem(std::uint64_t seed, double share) {
  Draws draws(seed, runtime::Purpose::test, 87);
  Problem problem;
  problem.budgets = {{"params", 0, 0}};
  const auto add = [&](const std::string& name, double params) {
    const double cost = 320 * std::floor(params / 320 * (0.8 + 0.4 * draws.uniform()));
    problem.items.push_back({name, 1e-9 * params * std::exp(1.5 * draws.normal()), {cost}, {}});
    return static_cast<int>(problem.items.size()) - 1;
  };
  for (int i = 0; i < 17; ++i) add("resnet" + std::to_string(i), i % 3 ? 31e6 : 4e6);
  for (int g = 0; g < 11; ++g) {
    Group group;
    Item all{"shell" + std::to_string(g), 0, {g < 6 ? 3281920.0 : 821760.0}, {}};
    for (int i = 0; i < (g < 6 ? 10 : 2); ++i) {
      group.members.push_back(add("block" + std::to_string(g) + "." + std::to_string(i), g < 6 ? 34.7e6 : 10e6));
      all.gain += problem.items.back().gain;
      all.cost[0] += problem.items.back().cost[0];
    }
    all.gain *= 0.8 + 0.6 * draws.uniform();
    group.all = all;
    problem.groups.push_back(group);
  }
  problem.budgets[0].total = freed_by(problem, Mask(problem.items.size(), 1))[0] * 1.05;
  problem.budgets[0].must_free = share * problem.budgets[0].total;
  return problem;
}

enum class Kind { gram, indefinite };

// Output differences of `rank` numbers a row, partly shared between neighbours; rows of `all` near the sum of members.
inline std::vector<std::vector<double>> random_differences(const Problem& problem, Draws& draws, int rank) {
  std::vector<std::vector<double>> rows;
  std::vector<double> shared(rank, 0.0);
  const auto draw = [&](double scale) {
    std::vector<double> row(rank);
    for (int k = 0; k < rank; ++k) {
      shared[k] = 0.7 * shared[k] + draws.normal();
      row[k] = scale * (0.5 * shared[k] + draws.normal());
    }
    return row;
  };
  for (std::size_t i = 0; i < problem.items.size(); ++i) rows.push_back(draw(std::exp(0.7 * draws.normal())));
  for (const Group& group : problem.groups) {
    if (!group.all) continue;
    std::vector<double> sum = draw(0.7);
    for (int member : group.members) {
      for (int k = 0; k < rank; ++k) sum[k] += rows[member][k];
    }
    rows.push_back(sum);
  }
  return rows;
}

inline void give_rows(Problem& problem) {
  int row = 0;
  for (Item& item : problem.items) item.row = row++;
  for (Group& group : problem.groups) {
    if (group.all) group.all->row = row++;
  }
}

inline void add_form(Problem& problem, std::uint64_t seed, Kind kind = Kind::gram) {
  Draws draws(seed, runtime::Purpose::test, 1000);
  const auto rows = random_differences(problem, draws, 24);
  const int n = static_cast<int>(rows.size());
  QuadraticForm form{n, std::vector<double>(std::size_t(n) * n)};
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j <= i; ++j) {
      double dot = 0;
      for (std::size_t k = 0; k < rows[i].size(); ++k) dot += rows[i][k] * rows[j][k];
      if (kind == Kind::indefinite) dot = 3 * draws.normal();
      form.values[i * n + j] = form.values[j * n + i] = dot;
    }
  }
  problem.form = form;
  give_rows(problem);
}

}  // namespace laptopdiff::pruning
