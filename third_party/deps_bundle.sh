#!/usr/bin/env bash
# Fills the git-ignored .deps/ with the header packages of a build, from their Debian packages, so that a machine with
# only a compiler, CMake and LibTorch can build: copy the tree with .deps/ there and run
#   cmake --preset release -DTorch_DIR=<libtorch>/share/cmake/Torch && cmake --build build
set -euo pipefail
packages=(nlohmann-json3-dev libeigen3-dev libcxxopts-dev doctest-dev libpng-dev zlib1g-dev)
target=$PWD/.deps
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# _apt may not enter a private folder, and only warns about it; the download itself is done by this user.
if ! (cd "$work" && apt-get download -qq "${packages[@]}" 2>"$work/log"); then
  cat "$work/log" >&2
  echo "make deps-bundle: the packages could not be downloaded; it needs Debian's apt-get with package lists" >&2
  echo "  (sudo apt-get update)" >&2
  exit 1
fi
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/root"; done

rm -rf "$target.new"
mkdir -p "$target.new/usr/include" "$target.new/usr/lib"
from=$work/root/usr to=$target.new/usr
for headers in nlohmann eigen3 doctest png.h pngconf.h pnglibconf.h zlib.h zconf.h; do
  cp -rL "$from/include/$headers" "$to/include/"  # png.h is a link
done
cp "$from"/include/cxxopts.hpp "$to/include/"
rm -rf "$to/include/eigen3/unsupported"
# Static archives only: the shared ones are links into packages that are not here.
for archive in libpng.a libz.a; do cp -L "$(find "$from/lib" -name "$archive")" "$to/lib/"; done
# A package's CMake config finds its headers from its own place, so it keeps it.
for config in nlohmann_jsonConfig.cmake Eigen3Config.cmake cxxopts-config.cmake; do
  found=$(dirname "$(find "$from" -name "$config")")
  kept=$to/${found#"$from/"}
  mkdir -p "$(dirname "$kept")" && cp -r "$found" "$kept"
done
rm -rf "$target"
mv "$target.new" "$target"
echo ".deps/: $(du -sm "$target" | cut -f1) MiB, from ${packages[*]}"
