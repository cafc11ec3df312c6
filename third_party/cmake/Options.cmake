# Switches and the flags that every target of ours gets.
option(LAPTOPDIFF_TESTS "Build the doctest programs" ON)
option(LAPTOPDIFF_TORCH "Build what needs LibTorch; OFF leaves the parsers, the architecture and the solvers" ON)
option(LAPTOPDIFF_MPI "Join the processes of mpirun and srun, where MPI is installed" ON)
option(LAPTOPDIFF_FUZZ "Build the fuzz targets of tests/fuzz (clang)" OFF)
option(LAPTOPDIFF_UNITY "Compile sources that use LibTorch four at a time: its headers cost more than the sources" ON)
option(LAPTOPDIFF_NATIVE "Tune for the processor of this machine" OFF)
set(LAPTOPDIFF_SANITIZE "" CACHE STRING "Sanitizers, e.g. address,undefined")
set(LAPTOPDIFF_CUDA AUTO CACHE STRING "CUDA: AUTO (where LibTorch has it), ON (an error where it has not) or OFF")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
# Most sources hand their work to LibTorch: -O2 would only take half as long again to compile. The loops of our own are
# in what laptopdiff_hot_sources() names.
set(CMAKE_CXX_FLAGS_RELEASE "-O1 -DNDEBUG")
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})  # the program is build/laptopdiff
enable_testing()

find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # A precompiled header is cached only with -fpch-preprocess (GCC) and this sloppiness.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
  endif()
endif()

add_library(laptopdiff_flags INTERFACE)
target_include_directories(laptopdiff_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(laptopdiff_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wno-unused-parameter>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # GCC 12's false alarms about std::string
  target_compile_options(laptopdiff_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict -Wno-array-bounds -Wno-stringop-overflow>)
endif()
if(LAPTOPDIFF_UNITY AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # In a unity file a source's own anonymous namespace looks like that of a header.
  target_compile_options(laptopdiff_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>)
endif()
if(LAPTOPDIFF_NATIVE)
  target_compile_options(laptopdiff_flags INTERFACE -march=native)
endif()
if(LAPTOPDIFF_SANITIZE)
  target_compile_options(laptopdiff_flags INTERFACE -fsanitize=${LAPTOPDIFF_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  target_link_options(laptopdiff_flags INTERFACE -fsanitize=${LAPTOPDIFF_SANITIZE})
endif()

# With torch. Every source pays some four seconds for templates that its headers leave to be made, precompiled or not, so
# four share them. clang-tidy and editors want a build with LAPTOPDIFF_UNITY=OFF.
function(laptopdiff_torch_options name)
  target_precompile_headers(${name} REUSE_FROM laptopdiff_pch)
  set_target_properties(${name} PROPERTIES UNITY_BUILD ${LAPTOPDIFF_UNITY} UNITY_BUILD_BATCH_SIZE 4)
endfunction()

# Sources with loops of their own. A precompiled header has one level of optimization, so they go without.
function(laptopdiff_hot_sources)
  set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS $<$<CONFIG:Release>:-O2> SKIP_PRECOMPILE_HEADERS ON)
endfunction()

# laptopdiff_library(NAME sources... DEPENDS targets... [TORCH])
# TORCH marks a library that needs LibTorch; the others compile without it, and are all there is with LAPTOPDIFF_TORCH
# off. Either kind has one precompiled header.
function(laptopdiff_library name)
  cmake_parse_arguments(ARG "TORCH" "" "DEPENDS" ${ARGN})
  if(ARG_TORCH AND NOT LAPTOPDIFF_TORCH)
    return()
  endif()
  add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PUBLIC laptopdiff_flags ${ARG_DEPENDS})
  if(ARG_TORCH)
    target_link_libraries(${name} PUBLIC laptopdiff_torch)
    laptopdiff_torch_options(${name})
    set(kind TORCH)
  else()
    target_precompile_headers(${name} REUSE_FROM laptopdiff_plain_pch)
    set(kind PLAIN)
  endif()
  # The test programs link all libraries of their kind without naming them.
  set_property(GLOBAL APPEND PROPERTY LAPTOPDIFF_${kind}_LIBRARIES ${name})
endfunction()
