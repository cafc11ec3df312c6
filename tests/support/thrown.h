// What a call throws, as a value: its exit code and its message.
#pragma once

#include <string>

#include "runtime/error.h"

namespace laptopdiff::test {

struct Thrown {
  runtime::ExitCode code = runtime::ExitCode::ok;  // ok: nothing was thrown
  std::string message;

  bool says(const std::string& part) const { return message.find(part) != std::string::npos; }
};

template <typename Call>
Thrown thrown_by(Call&& call) {
  try {
    call();
  } catch (const runtime::Error& error) {
    return {error.code(), error.what()};
  }
  return {};
}

}  // namespace laptopdiff::test
