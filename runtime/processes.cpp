#include "runtime/processes.h"

#ifdef LAPTOPDIFF_HAVE_MPI
#include <mpi.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <optional>

#include "runtime/error.h"

namespace laptopdiff::runtime {
namespace {

// Where launchers write how many processes there are: Open MPI's mpirun, MPICH's and Intel's, Slurm's srun. A batch
// script of Slurm's has the job's count too, but only a step that srun started has its own. The innermost launcher
// comes first: an mpirun inside a step of Slurm's leaves the step's count in the environment.
constexpr const char* kSizeVariables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE",
                                          "SLURM_STEP_NUM_TASKS"};

std::optional<Processes> joined;  // set by the first processes()

#ifdef LAPTOPDIFF_HAVE_MPI
Processes join_ranks(int launched) {
  int provided = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
    throw usage_error("MPI could not be started; see the messages of the launcher");
  Processes all;
  MPI_Comm_rank(MPI_COMM_WORLD, &all.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &all.size);
  if (all.size != launched) {
    throw usage_error("the launcher started ", launched, " processes, but MPI joins ", all.size,
                      " of them; use the mpirun of the MPI that this program was built with, or srun --mpi=pmix");
  }
  MPI_Comm machine = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, all.rank, MPI_INFO_NULL, &machine);
  MPI_Comm_rank(machine, &all.local_rank);
  MPI_Comm_size(machine, &all.local_size);
  MPI_Comm_free(&machine);
  return all;
}
#else
Processes join_ranks(int launched) {
  throw usage_error("started as one of ", launched,
                    " processes, but this build has no MPI; install libopenmpi-dev and ",
                    "build again, or start one process");
}
#endif

bool several() { return joined && joined->size > 1; }

}  // namespace

bool has_mpi() {
#ifdef LAPTOPDIFF_HAVE_MPI
  return true;
#else
  return false;
#endif
}

int launched_processes() {
  for (const char* name : kSizeVariables) {
    const char* text = std::getenv(name);
    if (text != nullptr) return std::max(1, std::atoi(text));
  }
  return 1;
}

const Processes& processes() {
  if (!joined) joined = launched_processes() > 1 ? join_ranks(launched_processes()) : Processes{};
  return *joined;
}

void barrier() {
#ifdef LAPTOPDIFF_HAVE_MPI
  if (several()) MPI_Barrier(MPI_COMM_WORLD);
#endif
}

std::string broadcast(const std::string& bytes) {
  std::string all = bytes;
#ifdef LAPTOPDIFF_HAVE_MPI
  if (several()) {
    std::uint64_t size = all.size();
    MPI_Bcast(&size, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    all.resize(size);
    MPI_Bcast(all.data(), static_cast<int>(size), MPI_CHAR, 0, MPI_COMM_WORLD);
  }
#endif
  return all;
}

bool broadcast_flag(bool value) { return broadcast(value ? "1" : "0") == "1"; }

void finish_processes(int code) {
#ifdef LAPTOPDIFF_HAVE_MPI
  if (!joined || launched_processes() == 1) return;
  if (code != 0) MPI_Abort(MPI_COMM_WORLD, code);
  MPI_Finalize();
#endif
}

}  // namespace laptopdiff::runtime
