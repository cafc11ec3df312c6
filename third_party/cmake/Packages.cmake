# How the packages of third_party/README.md are found. Header packages may also come from .deps/ (`make deps-bundle`).
list(APPEND CMAKE_PREFIX_PATH ${PROJECT_SOURCE_DIR}/.deps/usr)
list(APPEND CMAKE_INCLUDE_PATH ${PROJECT_SOURCE_DIR}/.deps/usr/include)

find_package(nlohmann_json 3.11 REQUIRED)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(cxxopts 3 REQUIRED)
find_package(PNG REQUIRED)
find_package(Threads REQUIRED)
find_path(DOCTEST_INCLUDE_DIR doctest/doctest.h)

# Unicode classes, lower-casing and NFC for the tokenizer. Without ICU only ASCII text is accepted, with a clear error.
find_package(ICU COMPONENTS uc i18n)

# Several processes on one scoring run; without it there is one. MPI's C interface is all that is used.
if(LAPTOPDIFF_MPI)
  set(MPI_CXX_SKIP_MPICXX ON)
  find_package(MPI COMPONENTS CXX)
endif()

# What the libraries without torch need, parsed once.
add_library(laptopdiff_plain_pch STATIC ${PROJECT_SOURCE_DIR}/third_party/pch.cpp)
target_link_libraries(laptopdiff_plain_pch PUBLIC laptopdiff_flags)
target_precompile_headers(laptopdiff_plain_pch PRIVATE <nlohmann/json.hpp> <filesystem> <functional> <sstream>)

if(NOT LAPTOPDIFF_TORCH)
  return()
endif()
find_package(OpenMP REQUIRED COMPONENTS CXX)

# LibTorch: Torch_DIR where the user gives one, else the wheel in the project's virtual environment or of python3.
if(NOT Torch_DIR)
  foreach(python ${PROJECT_SOURCE_DIR}/.venv/bin/python python3)
    execute_process(COMMAND ${python} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
                    OUTPUT_VARIABLE torch_root OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
    if(NOT failed AND EXISTS ${torch_root}/share/cmake/Torch)
      set(Torch_DIR ${torch_root}/share/cmake/Torch CACHE PATH "LibTorch's CMake folder")
      break()
    endif()
  endforeach()
endif()
get_filename_component(torch_prefix ${Torch_DIR}/../../.. ABSOLUTE)

# The kernels need the CUDA compiler alone (LAPTOPDIFF_WITH_NVCC); what else a CUDA build has, the toolkit and a LibTorch
# with CUDA (LAPTOPDIFF_WITH_CUDA).
set(LAPTOPDIFF_WITH_NVCC OFF)
set(LAPTOPDIFF_WITH_CUDA OFF)
if(NOT LAPTOPDIFF_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit QUIET)
  endif()
  if(CMAKE_CUDA_COMPILER AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 11.8)  # the first to know Hopper
    set(LAPTOPDIFF_WITH_NVCC ON)
  endif()
  if(LAPTOPDIFF_WITH_NVCC AND CUDAToolkit_FOUND AND EXISTS ${torch_prefix}/lib/libtorch_cuda.so)
    set(LAPTOPDIFF_WITH_CUDA ON)
  endif()
endif()
if(LAPTOPDIFF_CUDA STREQUAL "ON" AND NOT LAPTOPDIFF_WITH_CUDA)
  message(FATAL_ERROR "LAPTOPDIFF_CUDA is ON, but the LibTorch in ${Torch_DIR} is a CPU build, or there is no CUDA "
                      "Toolkit from 11.8 on; give the folder of a CUDA build with -DTorch_DIR=... and its compiler with "
                      "CUDACXX=..., or configure with -DLAPTOPDIFF_CUDA=AUTO")
endif()

set(torch_includes)
if(EXISTS ${torch_prefix}/lib/libtorch_cuda.so AND NOT LAPTOPDIFF_WITH_CUDA)
  # LibTorch's CMake files want the toolkit, its libraries do not: without our kernels a GPU still runs the plain layers.
  set(PACKAGE_FIND_VERSION 2.11)
  include(${Torch_DIR}/TorchConfigVersion.cmake)
  if(NOT PACKAGE_VERSION_COMPATIBLE)
    message(FATAL_ERROR "LibTorch ${PACKAGE_VERSION} in ${Torch_DIR} is not 2.11 or newer")
  endif()
  set(Torch_VERSION ${PACKAGE_VERSION})
  set(TORCH_INSTALL_PREFIX ${torch_prefix})
  set(TORCH_LIBRARIES -Wl,--push-state,--no-as-needed ${torch_prefix}/lib/libtorch.so ${torch_prefix}/lib/libtorch_cpu.so
    ${torch_prefix}/lib/libtorch_cuda.so ${torch_prefix}/lib/libc10_cuda.so ${torch_prefix}/lib/libc10.so
    -Wl,--pop-state -Wl,--allow-shlib-undefined)
  set(torch_includes ${torch_prefix}/include ${torch_prefix}/include/torch/csrc/api/include)
else()
  # Or LibTorch compiles and runs a program to ask for the card, which fails without one. Our kernels name their own.
  if(NOT DEFINED TORCH_CUDA_ARCH_LIST AND NOT DEFINED ENV{TORCH_CUDA_ARCH_LIST})
    set(TORCH_CUDA_ARCH_LIST 9.0)
  endif()
  find_package(Torch 2.11 REQUIRED)
endif()
# One OpenMP runtime: a wheel of LibTorch brings its own, under the name of the compiler's.
find_library(LAPTOPDIFF_OPENMP NAMES libgomp.so.1 PATHS ${TORCH_INSTALL_PREFIX}/lib NO_DEFAULT_PATH)
if(NOT LAPTOPDIFF_OPENMP)
  set(LAPTOPDIFF_OPENMP ${OpenMP_CXX_LIBRARIES})
endif()
message(STATUS "LibTorch ${Torch_VERSION} in ${Torch_DIR}, CUDA: ${LAPTOPDIFF_WITH_CUDA}")

add_library(laptopdiff_torch INTERFACE)
target_link_libraries(laptopdiff_torch INTERFACE ${TORCH_LIBRARIES})
# LibTorch 2.11's CUDA wheel exports a std::filesystem of its own that calls what is not there (remove_all crashes): the
# standard library has to come first.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  target_link_options(laptopdiff_torch INTERFACE LINKER:--push-state,--no-as-needed,-lstdc++,--pop-state)
endif()
target_compile_options(laptopdiff_torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-isystem$<SEMICOLON>${TORCH_INSTALL_PREFIX}/include>)
target_include_directories(laptopdiff_torch SYSTEM INTERFACE ${torch_includes})
separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
target_compile_options(laptopdiff_torch INTERFACE ${torch_flags})

# What nearly every torch source needs, parsed once. Not torch/torch.h: its precompiled form takes 740 MB and 6 s to load.
add_library(laptopdiff_pch STATIC ${PROJECT_SOURCE_DIR}/third_party/pch.cpp)
target_link_libraries(laptopdiff_pch PUBLIC laptopdiff_flags laptopdiff_torch)
target_precompile_headers(laptopdiff_pch PRIVATE <torch/types.h> <nlohmann/json.hpp>)
