// What every fuzz target needs: a verdict on what was thrown, laws that end the run, and files to put the input in.
//
// A target takes any bytes. It may be refused with runtime::Error and nothing else: another exception, a sanitizer's
// report, a broken law, too much time or memory is a finding.
#pragma once

#include <stdlib.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "runtime/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace laptopdiff::fuzz {

// A law that must hold whatever the input is.
inline void require(bool holds, const char* law) {
  if (holds) return;
  std::fprintf(stderr, "broken law: %s\n", law);
  std::abort();
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Runs `call`; true where it was not refused. A refusal must be the input's fault and say so on one screen.
template <typename Call>
bool accepts(Call&& call) {
  constexpr std::size_t kScreen = 8000;
  try {
    call();
    return true;
  } catch (const runtime::Error& error) {
    const std::string_view message = error.what();
    require(error.code() == runtime::ExitCode::bad_input || error.code() == runtime::ExitCode::usage,
            "a refusal blames the input");
    require(!message.empty() && message.size() < kScreen, "a refusal fits on a screen");
    return false;
  }
}

// A folder for the whole run, in memory where the machine has such a place.
inline const std::filesystem::path& scratch_folder() {
  static const std::filesystem::path folder = [] {
    const std::filesystem::path memory = "/dev/shm";
    const auto parent = std::filesystem::is_directory(memory) ? memory : std::filesystem::temp_directory_path();
    std::string name = parent / "laptopdiff-fuzz-XXXXXX";
    require(::mkdtemp(name.data()) != nullptr, "there is room for a scratch folder");
    static const std::string made = name;
    std::atexit([] {
      std::error_code ignored;
      std::filesystem::remove_all(made, ignored);
    });
    return std::filesystem::path(made);
  }();
  return folder;
}

inline void put_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace laptopdiff::fuzz
