#!/usr/bin/env bash
# The one script of this repository. Alone it prints its menu.
set -euo pipefail
here=$PWD # what the programs are given or write is relative to here
cd "$(dirname "$(readlink -f "$0")")"

menu() {
  cat <<'MENU'
extmem: named heaps over memory you already own

  ./do run [ARGS]      set up, build, and run the main job: extmem demo ARGS
  ./do test            set up, build and pass every test: gcc, clang, release, sanitizers, fuzzing, lint
  ./do test --quick    only the gcc build's tests
  ./do crash [ARGS]    kill processes everywhere and recover (--quick: a few minutes; --full; --only PART; --json FILE; --seed N)
  ./do bench [ARGS]    set up, build and run the benchmarks (--quick --json FILE for a short run)
  ./do check           formatting and lint;  --fix formats,  --tidy runs clang-tidy too
  ./do docs            build the man pages
  ./do fresh           pass `run` and `test` of the committed tree in a new, minimal Debian
  ./do setup [GROUP]   install missing Debian packages (groups: build test check bench fresh; see tools/packages.txt)
  ./do clean           remove everything built
MENU
}

jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
export CMAKE_BUILD_PARALLEL_LEVEL=$jobs

say() { printf '\n==> [%s] %s\n' "$(date +%H:%M:%S)" "$*"; }
die() { printf './do: %s\n' "$*" >&2; exit 1; }

# setup GROUP...: installs what tools/packages.txt lists for the groups and is missing; else touches nothing.
setup() {
  if ! command -v dpkg-query >/dev/null; then
    echo "./do: not a Debian system; tools/packages.txt lists what must be there for: $*" >&2
    return 0
  fi
  local installed group package why missing=()
  installed=" $(dpkg-query -W -f='${db:Status-Status}:${Package} ' 2>/dev/null)"
  while read -r group package why; do
    [[ $group == \#* || -z $group || " $* " != *" $group "* ]] && continue
    [[ $installed == *" installed:$package "* ]] && continue
    ((${#missing[@]})) || say "installing missing Debian packages"
    printf '  %-24s %s\n' "$package" "$why"
    missing+=("$package")
  done <tools/packages.txt
  ((${#missing[@]})) || return 0

  local root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "needs root to install packages, and there is no sudo. As root: apt-get install ${missing[*]}"
    root=(sudo)
  fi
  mkdir -p build
  "${root[@]}" apt-get update -qq || echo "./do: apt-get update failed; trying with the lists that are there" >&2
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" \
    >build/setup.log 2>&1 </dev/null || {
    tail -20 build/setup.log
    die "could not install: ${missing[*]}. Check the network and the sources in /etc/apt, then run this again."
  }
}

# configure PRESET [CMAKE OPTIONS]
configure() {
  local preset=$1
  shift
  mkdir -p build
  cmake --preset "$preset" "$@" >"build/$preset.log" 2>&1 || { cat "build/$preset.log"; return 1; }
}

# build PRESET [TARGET...]
build() {
  local preset=$1
  shift
  cmake --build --preset "$preset" ${1:+--target "$@"} -- -k 0
}

# Sanitizers of clang 14 cannot place their shadow memory where the kernel randomises more than 28 bits.
fixed_addresses() {
  if setarch -R true 2>/dev/null; then setarch -R "$@"; else "$@"; fi
}

stages=() # what tools/test_summary reads

# stage PRESET WHAT TARGETS OPTIONS-FOR-CTEST...: builds a preset with -Werror and runs its tests. Goes on after a
# failure.
stage() {
  local preset=$1 what=$2 targets run=()
  read -ra targets <<<"$3"
  shift 3
  say "$preset: $what"
  rm -f "build/$preset"/{junit.xml,ctest.log}
  if ! configure "$preset" -DEXTMEM_WERROR=ON; then
    stages+=("$preset:does not configure")
  elif ! build "$preset" "${targets[@]}"; then
    stages+=("$preset:does not build")
  else
    case $preset in asan | tsan | fuzz) run=(fixed_addresses) ;; esac
    local status=0
    "${run[@]}" ctest --preset "$preset" -j"$jobs" --no-label-summary --test-output-size-passed 65536 \
      --test-output-truncation head --output-junit junit.xml --output-log "$PWD/build/$preset/ctest.log" "$@" || status=$?
    stages+=("$preset=build/$preset/junit.xml@$status")
  fi
}

do_test() {
  local quick=${1:-}
  [[ -z $quick || $quick == --quick ]] || die "test takes --quick or nothing, not '$quick'"
  setup build test
  local start=$SECONDS
  stage dev "gcc, assertions, every test" all
  if [[ -z $quick ]]; then
    stage asan "clang, AddressSanitizer and UndefinedBehaviorSanitizer" all -LE 'headers|lint|consumer|spin'
    stage tsan "clang, ThreadSanitizer" "build_unit build_stress" -L 'unit|stress'
    stage release-test "as installed: gcc, -O2, LTO, no assertions; all but unit tests" all -LE 'headers|lint|spin'
    if compgen -G 'tests/fuzz/*_fuzz.cpp' >/dev/null; then
      stage fuzz "libFuzzer, a short run of each target" all
    fi
  fi
  say "summary, after $((SECONDS - start)) seconds"
  tools/test_summary "${stages[@]}"
}

do_run() {
  setup build
  say "building (release)"
  configure release
  build release
  [[ -x build/release/bin/extmem ]] || die "src/faces/cli holds no program yet"
  say "extmem demo $*"
  local root=$PWD
  cd "$here"
  exec "$root/build/release/bin/extmem" demo "$@"
}

do_bench() {
  setup build bench
  say "building (bench)"
  configure bench
  build bench
  [[ -x bench/run ]] || die "bench/run does not exist yet"
  local root=$PWD
  cd "$here"
  exec "$root/bench/run" "$root/build/bench" "$@"
}

do_crash() {
  setup build test
  say "building (dev)"
  configure dev -DEXTMEM_WERROR=ON
  build dev crash_run
  local root=$PWD
  cd "$here"
  exec "$root/build/dev/bin/crash_run" "$@"
}

do_check() {
  setup check
  local fix=--dry-run tidy='' argument status=0
  for argument; do
    case $argument in
      --fix) fix=-i ;;
      --tidy) tidy=yes ;;
      *) die "check takes --fix and --tidy, not '$argument'" ;;
    esac
  done
  say "clang-format"
  git ls-files -z '*.c' '*.h' '*.cpp' '*.hpp' | xargs -0 clang-format-14 "$fix" --Werror || status=1
  say "lint"
  tools/lint_layers || status=1
  if [[ $tidy ]]; then
    say "clang-tidy"
    setup build test
    configure dev-clang
    git ls-files -z 'src/*.cpp' | xargs -0 -n 1 -P "$jobs" clang-tidy-14 -p build/dev-clang --quiet || status=1
  fi
  return "$status"
}

do_docs() {
  setup build
  say "man pages"
  configure release
  build release man
  echo "built in build/release/man"
}

command=${1:-menu}
(($# == 0)) || shift
case $command in
  menu | help | -h | --help) menu ;;
  run) do_run "$@" ;;
  test) do_test "$@" ;;
  crash) do_crash "$@" ;;
  bench) do_bench "$@" ;;
  check) do_check "$@" ;;
  docs) do_docs ;;
  fresh) setup fresh && exec tools/fresh "$@" ;;
  setup) setup "${@:-build}" ;;
  clean) rm -rf build ;;
  *) menu >&2; die "no such command: $command" ;;
esac
