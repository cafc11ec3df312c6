#!/usr/bin/env bash
# packages.sh build|demo|lint|fuzz
# Leaves this machine with the Debian packages of that list: installs them where it may, else says what to run. What is
# only wanted is no reason to stop.
set -euo pipefail
wanted=()
case ${1:-} in
  build) packages=(g++ cmake ninja-build ccache python3-venv nlohmann-json3-dev libeigen3-dev libcxxopts-dev
                   doctest-dev libpng-dev libicu-dev)
         wanted=(libopenmpi-dev openmpi-bin) ;;
  demo) packages=(dataset-fashion-mnist) ;;
  lint) packages=(clang-format-14 clang-tidy-14) ;;
  fuzz) packages=(clang-14 libclang-rt-14-dev llvm-14) ;;
  *) echo "usage: packages.sh build|demo|lint|fuzz" >&2; exit 2 ;;
esac

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=() absent=()
if command -v dpkg-query >/dev/null; then
  for package in "${packages[@]}"; do is_installed "$package" || missing+=("$package"); done
  for package in "${wanted[@]}"; do is_installed "$package" || absent+=("$package"); done
  if [ ${#missing[@]} -eq 0 ] && [ ${#absent[@]} -eq 0 ]; then exit 0; fi
else
  missing=("${packages[@]}")
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; then
  install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends)
  # The package lists may be absent or old: fetch them only when a first try fails.
  install_all() {
    echo "set-up: installing $*" >&2
    "${install[@]}" "$@" >/dev/null 2>&1 ||
      { "${as_root[@]}" apt-get update -qq && "${install[@]}" "$@" >/dev/null; }
  }
  if [ ${#missing[@]} -gt 0 ]; then install_all "${missing[@]}"; fi
  if [ ${#absent[@]} -gt 0 ]; then install_all "${absent[@]}" || echo "set-up: going on without ${absent[*]}" >&2; fi
  exit 0
fi

if [ ${#missing[@]} -eq 0 ]; then
  echo "set-up: going on without ${absent[*]}; sudo apt-get install ${absent[*]} adds them" >&2
  exit 0
fi
echo "set-up: these packages are missing and this user may not install them:" >&2
echo "  sudo apt-get install ${missing[*]}" >&2
if [ "$1" = build ] && [ -d .deps/usr/include ] && command -v cmake ninja c++ >/dev/null; then
  echo "set-up: going on with the header packages in .deps/ (see CONTRIBUTING.md)" >&2
  exit 0
fi
exit 1
