#include "pruning/solvers/binary_form.h"

#include <algorithm>

namespace laptopdiff::pruning {

namespace {

struct Entry {
  const Item* item;
  int index;  // of the item, -1 for an `all`
  int group;
  Domain domain;
};

Domain lone_domain(const std::optional<Decision>& decision) {
  if (!decision) return Domain::free;
  return *decision == Decision::keep ? Domain::zero : Domain::one;
}

Domain member_domain(const std::optional<Decision>& decision, bool all_must_go) {
  if (all_must_go) return Domain::zero;
  return decision ? Domain::unless_whole : Domain::free;
}

// Appends the group's variables to `entries`, and the group to the form.
void add_group(const Problem& problem, const Group& group, const std::vector<std::optional<Decision>>& decision,
               std::vector<Entry>& entries, BinaryForm& form) {
  const int index = static_cast<int>(form.groups.size());
  const bool all_must_go =
      std::all_of(group.members.begin(), group.members.end(), [&](int i) { return decision[i] == Decision::remove; });
  VariableGroup variables;
  variables.source = static_cast<int>(&group - problem.groups.data());
  variables.whole = static_cast<int>(entries.size());
  entries.push_back({&*group.all, -1, index, all_must_go ? Domain::one : Domain::free});
  for (int member : group.members) {
    variables.members.push_back(static_cast<int>(entries.size()));
    const Domain domain = group.members.size() == 1 ? Domain::zero : member_domain(decision[member], all_must_go);
    entries.push_back({&problem.items[member], member, index, domain});
  }
  form.groups.push_back(std::move(variables));
}

void fill(const Problem& problem, const std::vector<Entry>& entries, BinaryForm& form) {
  const std::size_t n = entries.size();
  form.size = static_cast<int>(n);
  form.q.assign(n * n, 0.0);
  form.cost.resize(form.budgets * n);
  for (std::size_t i = 0; i < n; ++i) {
    const Item& item = *entries[i].item;
    form.domain.push_back(entries[i].domain);
    form.item.push_back(entries[i].index);
    form.group.push_back(entries[i].group);
    for (int d = 0; d < form.budgets; ++d) form.cost[d * n + i] = item.cost[d];
    if (!problem.form || !item.row) {
      form.q[i * n + i] = item.gain;
      continue;
    }
    for (std::size_t j = 0; j < n; ++j) {
      const auto& row = entries[j].item->row;
      if (row) form.q[i * n + j] = 0.5 * (problem.form->at(*item.row, *row) + problem.form->at(*row, *item.row));
    }
  }
}

}  // namespace

BinaryForm make_binary_form(const Problem& problem) {
  BinaryForm form;
  form.budgets = static_cast<int>(problem.budgets.size());
  form.items = static_cast<int>(problem.items.size());
  form.need = requirements(problem);
  const auto decision = decisions(problem);
  std::vector<bool> grouped(problem.items.size(), false);
  std::vector<Entry> entries;
  for (const Group& group : problem.groups) {
    const bool must_keep =
        std::any_of(group.members.begin(), group.members.end(), [&](int i) { return decision[i] == Decision::keep; });
    if (!group.all || must_keep) continue;
    for (int member : group.members) grouped[member] = true;
    add_group(problem, group, decision, entries, form);
  }
  for (int i = 0; i < form.items; ++i) {
    if (!grouped[i]) entries.push_back({&problem.items[i], i, -1, lone_domain(decision[i])});
  }
  fill(problem, entries, form);
  return form;
}

double BinaryForm::loss(std::span<const std::uint8_t> y) const {
  double sum = 0;
  for (int i = 0; i < size; ++i) {
    if (!y[i]) continue;
    sum += at(i, i);
    for (int j = 0; j < i; ++j) sum += y[j] ? 2 * at(i, j) : 0.0;
  }
  return sum;
}

bool BinaryForm::is_feasible(std::span<const std::uint8_t> y) const {
  for (int d = 0; d < budgets; ++d) {
    double freed = 0;
    for (int i = 0; i < size; ++i) freed += y[i] ? cost_of(d, i) : 0.0;
    if (freed < need[d]) return false;
  }
  return true;
}

Mask BinaryForm::removed(std::span<const std::uint8_t> y) const {
  Mask mask(items, 0);
  for (int i = 0; i < size; ++i) {
    if (item[i] < 0) continue;
    mask[item[i]] = y[i] || (group[i] >= 0 && y[groups[group[i]].whole]);
  }
  return mask;
}

std::vector<std::uint8_t> BinaryForm::variables(const Mask& removed) const {
  std::vector<std::uint8_t> y(size, 0);
  for (int i = 0; i < size; ++i) {
    if (item[i] >= 0) y[i] = removed[item[i]];
  }
  for (const VariableGroup& group : groups) {
    if (!std::all_of(group.members.begin(), group.members.end(), [&](int i) { return y[i] != 0; })) continue;
    for (int member : group.members) y[member] = 0;
    y[group.whole] = 1;
  }
  return y;
}

}  // namespace laptopdiff::pruning
