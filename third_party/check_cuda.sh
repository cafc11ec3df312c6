#!/usr/bin/env bash
# check_cuda.sh VENV JOBS
# Compiles and links everything against the CUDA build of torch in VENV, with the CUDA compiler in the same place.
# Needs no GPU and no CUDA Toolkit on the machine. Without a GPU what it builds still runs on the processor, and the tests
# of the libraries say whether this LibTorch does there what the CPU build does.
set -euo pipefail
venv=$1 jobs=$2
site=$(cd "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')" && pwd)
toolkit=$(echo "$site"/nvidia/cu[0-9]*)
torch=$site/torch/share/cmake/Torch

# The wheels hold the shared libraries under their versioned names only, and in lib/; the linker wants plain names, and
# CMake looks in lib64/.
for library in "$toolkit"/lib/lib*.so.*; do
  name=$(basename "$library")
  [ -e "$toolkit/lib/${name%%.so.*}.so" ] || ln -s "$name" "$toolkit/lib/${name%%.so.*}.so"
done
[ -e "$toolkit/lib64" ] || ln -s lib "$toolkit/lib64"

# One old and one recent architecture: the check is that the code compiles, not that it is tuned.
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-"8.0 9.0"}
export PATH=$toolkit/bin:$PATH CUDA_HOME=$toolkit CUDACXX=$toolkit/bin/nvcc
cmake --preset cuda -DTorch_DIR="$torch" -DCUDA_TOOLKIT_ROOT_DIR="$toolkit" -DCUDAToolkit_ROOT="$toolkit"
cmake --build build-cuda -j "$jobs"
build-cuda/laptopdiff_torch_tests --no-intro=true --no-colors=true --test-suite-exclude=slow
echo "check-cuda: compiled and linked against $("$venv/bin/python" -c 'import torch; print("torch", torch.__version__, "CUDA", torch.version.cuda)')"
