#!/usr/bin/env bash
# The one script of this repository. Alone it prints its menu.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
export CMAKE_BUILD_PARALLEL_LEVEL=$jobs

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }

build() { # PRESET [cmake options]: configures and builds it
  local preset=$1
  shift
  cmake --preset "$preset" "$@" >"build/$preset.configure.log" 2>&1 || { cat "build/$preset.configure.log"; return 1; }
  cmake --build --preset "$preset"
}

menu() { echo "./do test --quick"; }
case ${1:-} in
  test) mkdir -p build; build dev && ctest --preset dev -j"$jobs" ;;
  *) menu ;;
esac
