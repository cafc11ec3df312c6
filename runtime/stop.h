// Stopping at a safe point: SIGINT and SIGTERM set a flag that long loops ask for between two steps.
#pragma once

namespace laptopdiff::runtime {

// Installs the handlers; a second signal ends the process at once. Called once by main. Also turns what the kernel
// sends where a mapped file was cut short under us (SIGBUS) into a message and the exit code of a bad input.
void install_stop_handlers();

// True once a signal has come. A loop that sees it saves its state and throws stopped_error.
bool stop_requested();

// Throws Error(stopped) where a signal has come; `what` says what was saved and how to go on.
void throw_if_stopped(const char* what);

// The same for work that keeps nothing: throws Error(interrupted).
void throw_if_interrupted(const char* what);

}  // namespace laptopdiff::runtime
