// Several processes of one run, one a rank: started by `mpirun -n 4 laptopdiff ...` or Slurm's `srun`, joined by MPI.
//
// MPI is an option of the build and is only started where the launcher's environment says that there is more than one
// process, so an ordinary run pays nothing. Everything here does nothing, or the obvious, for one process. Knows no
// torch; MPI's own header stays in the source.
#pragma once

#include <string>

namespace laptopdiff::runtime {

// True where the build has MPI.
bool has_mpi();

// How many processes the launcher says it started, the innermost where there are two; 1 without a launcher. Starts
// nothing.
int launched_processes();

struct Processes {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // among those on this machine
  bool first() const { return rank == 0; }
};

// The first call joins the other ranks. Throws Error(usage) where the launcher started several processes and this
// build, or its MPI, cannot join them: each would do all of the work and write over the others.
const Processes& processes();

// Waits for all ranks.
void barrier();

// Rank 0's bytes, on every rank.
std::string broadcast(const std::string& bytes);

// A bool of rank 0's, on every rank.
bool broadcast_flag(bool value);

// Called once at the end of main. After an error one rank must not leave the others waiting: `code` is not 0 there, and
// all processes end with it. Returns for one process, and where all ranks have come here with 0.
void finish_processes(int code);

}  // namespace laptopdiff::runtime
