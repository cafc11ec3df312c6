// Exists so that the precompiled header has a target to belong to.
namespace laptopdiff {
void precompiled_header_anchor() {}
}  // namespace laptopdiff
