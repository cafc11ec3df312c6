// `completion`: shell completion of verbs and their common flags.
#include <iostream>

#include "experiments/command.h"
#include "experiments/verbs.h"
#include "runtime/error.h"

namespace laptopdiff::experiments {
namespace {

struct CompletionOptions {
  std::string shell;
  template <typename V>
  void fields(V& v) {
    v("shell", shell, "bash, zsh or fish");
  }
};

std::string verb_words() {
  std::string words;
  for (const Verb& verb : verbs()) words += std::string(words.empty() ? "" : " ") + verb.name;
  return words;
}

// The long flags are asked of the program itself, so that they cannot go stale.
constexpr const char* kFlagQuery = R"(laptopdiff "$verb" --help 2>/dev/null | grep -oE -- '--[a-z0-9-]+' | sort -u)";

void print_bash() {
  std::cout << "_laptopdiff() {\n"
            << "  local verb=${COMP_WORDS[1]} word=${COMP_WORDS[COMP_CWORD]}\n"
            << "  if [ \"$COMP_CWORD\" -eq 1 ]; then COMPREPLY=($(compgen -W \"" << verb_words()
            << "\" -- \"$word\"));\n"
            << "  elif [ \"${word:0:1}\" = - ]; then COMPREPLY=($(compgen -W \"$(" << kFlagQuery
            << ")\" -- \"$word\"));\n"
            << "  else COMPREPLY=($(compgen -f -- \"$word\")); fi\n"
            << "}\ncomplete -o filenames -F _laptopdiff laptopdiff\n";
}

void print_zsh() {
  std::cout << "#compdef laptopdiff\n"
            << "_laptopdiff() {\n  local -a verbs\n  verbs=(\n";
  for (const Verb& verb : verbs()) std::cout << "    '" << verb.name << "'\n";
  std::cout << "  )\n  if (( CURRENT == 2 )); then _describe verb verbs; return; fi\n"
            << "  local verb=${words[2]}\n"
            << "  if [[ ${words[CURRENT]} == -* ]]; then compadd -- ${(f)\"$(" << kFlagQuery
            << ")\"}; else _files; fi\n"
            << "}\ncompdef _laptopdiff laptopdiff\n";
}

void print_fish() {
  for (const Verb& verb : verbs()) {
    std::cout << "complete -c laptopdiff -n __fish_use_subcommand -f -a " << verb.name << " -d \"" << verb.summary
              << "\"\n";
  }
}

}  // namespace

void run_completion(const Invocation& invocation) {
  const auto parsed = parse_command<CompletionOptions>(invocation, {"shell"});
  const std::string& shell = parsed.own.shell;
  if (shell == "bash") return print_bash();
  if (shell == "zsh") return print_zsh();
  if (shell == "fish") return print_fish();
  throw runtime::usage_error("completion: expected bash, zsh or fish", shell.empty() ? "" : ", got `" + shell + "`");
}

}  // namespace laptopdiff::experiments
