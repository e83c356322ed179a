#!/bin/sh
# SPDX-License-Identifier: MIT
# Hostile input: the targets of tests/fuzz/ (memory, file, directory, recover, cat) over their corpus, and a
# while of fuzzing.
#
#   tests/fuzz.sh                      the test: replays the corpus under sanitizers, shows that a planted bug
#                                      is found, fuzzes for OJO_FUZZ_SECONDS in all (60 if OJO_CI=1, else 10)
#   tests/fuzz.sh libfuzzer SECONDS    fuzzes on two processors; what is new goes to build/fuzz/corpus/,
#                                      what is found to build/fuzz/found/
#   tests/fuzz.sh afl SECONDS          the same with AFL++
#   tests/fuzz.sh merge [TARGET...]    takes what reaches new code into tests/fuzz/corpus/: review it
set -u
cd "$(dirname "$0")/.." || exit 1
CC=${CC:-cc}
BUILD=${BUILD:-build}
dir=$BUILD/fuzz
targets='memory file cat directory recover'
flags="-std=c11 -I. -O1 -g -fno-omit-frame-pointer -Wall -Wextra -Wpedantic -Wconversion -Wshadow ${CPPFLAGS:-}"
sanitize='-fsanitize=address,undefined -fno-sanitize-recover=all'
limits='-rss_limit_mb=768 -malloc_limit_mb=128 -timeout=20 -max_len=16384'
mkdir -p "$dir/found" || exit 1
# Scratch files, many a second: in memory where that is.
TMPDIR=$(mktemp -d /dev/shm/ojo_fuzz_tmp.XXXXXX 2>/dev/null || mktemp -d)
export TMPDIR
# A target that is killed leaves its pool behind, under a trace id that ends in its process id.
clean() {
  rm -rf "$TMPDIR"
  for pool in /dev/shm/ojo_*_0f0220f0220f0220*; do
    pid=$(printf '%d' "0x${pool##*_0f0220f0220f0220}" 2>/dev/null) && ! kill -0 "$pid" 2>/dev/null && rm -f "$pool"
  done
}
trap clean EXIT
trap 'exit 1' INT TERM HUP
passed=0 failed=0 skipped=0

pass() { passed=$((passed + 1)); }
fail() { # fail NAME LOG
  failed=$((failed + 1))
  echo "FAILED: $1"
  tail -n 40 "$2"
}
skip() {
  skipped=$((skipped + 1))
  echo "skip: fuzz.$1: $2"
}
have() { command -v "$1" >/dev/null 2>&1; }

# compile FLAVOUR COMPILER FLAGS: the objects of all sources, two at a time, where they are not up to date.
compile() {
  mkdir -p "$dir/$1"
  if [ -n "$(find ojo.h ojo_reader.h tools tests/fuzz -name '*.[ch]' -newer "$dir/$1/done" 2>/dev/null)" ] ||
    [ ! -e "$dir/$1/done" ]; then
    rm -f "$dir/$1/done"
    for source in tests/fuzz/*.c tools/export_*.c; do
      # fuzz_human.c includes it
      [ "$source" = tools/export_human.c ] || echo "$source $dir/$1/$(basename "$source" .c).o"
    done | xargs -P 2 -L 1 sh -c "$2 $flags $3 -c -o \$1 \$0" && : > "$dir/$1/done"
  fi
  [ -e "$dir/$1/done" ]
}
# planted FLAVOUR COMPILER FLAGS: the same, linked with a bug in it.
planted() {
  $2 $flags $3 -DFUZZ_PLANTED -c -o "$dir/$1/planted" tests/fuzz/fuzz_reader.c || return 1
  objects=$(ls "$dir/$1"/*.o | grep -v /fuzz_reader.o)
  $2 $3 -o "$dir/$1.planted" -x none $objects "$dir/$1/planted" -pthread
}
build() { # build FLAVOUR COMPILER FLAGS
  compile "$@" && $2 $3 -o "$dir/$1.program" "$dir/$1"/*.o -pthread
}
works() { # works COMPILER FLAGS: a program made so runs here
  printf '%s\n' '#include <stddef.h>' '#include <stdint.h>' 'int LLVMFuzzerTestOneInput(const uint8_t *d, size_t n);' \
    'int LLVMFuzzerTestOneInput(const uint8_t *d, size_t n) { return n > 9 && !d; }' "$3" > "$dir/works.c"
  $1 $2 -o "$dir/works" "$dir/works.c" -pthread >/dev/null 2>&1 && "$dir/works" -runs=1 >/dev/null 2>&1 </dev/null
}
libfuzzer_works() { have clang && works clang "-fsanitize=fuzzer $sanitize" ''; }
afl_works() { have afl-fuzz && have afl-clang-fast; }

# The directories whose inputs a target takes: its own, and that of the target that it shares its layout with.
inputs() {
  case $1 in
  file | memory) echo "tests/fuzz/corpus/memory tests/fuzz/corpus/file" ;;
  cat | directory) echo "tests/fuzz/corpus/cat tests/fuzz/corpus/directory" ;;
  *) echo "tests/fuzz/corpus/$1" ;;
  esac
}
# fuzz PROGRAM TARGET SECONDS [FLAG...]: with libFuzzer. Fails if it finds something.
fuzz() {
  program=$1 target=$2 seconds=$3
  shift 3
  mkdir -p "$dir/corpus/$target"
  OJO_FUZZ_TARGET=$target "$program" $limits -max_total_time="$seconds" -print_final_stats=1 \
    -artifact_prefix="$dir/found/$target-" "$@" "$dir/corpus/$target" $(inputs "$target") \
    > "$dir/$target.log" 2>&1
}
figures() { # figures TARGET: one line of what a run of libFuzzer reached
  sed -n "s/.*DONE *cov: *\([0-9]*\) ft: *\([0-9]*\) .*exec\/s: *\([0-9]*\) rss: *\([0-9]*\)Mb.*/$1: \1 edges, \2 features, \3 runs a second, \4 MiB/p" \
    "$dir/$1.log" | tail -n 1
}
afl_flags() {
  # the machine's settings are not ours to change, and no terminal is there
  export AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_NO_UI=1 AFL_NO_AFFINITY=1 AFL_QUIET=1
  export AFL_CUSTOM_MUTATOR_LIBRARY="$PWD/$dir/mutate.so"
  export ASAN_OPTIONS=abort_on_error=1:symbolize=0:detect_leaks=0 UBSAN_OPTIONS=abort_on_error=1:symbolize=0
  case $dir in /*) AFL_CUSTOM_MUTATOR_LIBRARY=$dir/mutate.so ;; esac
}
afl_build() {
  $CC $flags -fPIC -shared -DFUZZ_AFL_MUTATOR -o "$dir/mutate.so" tests/fuzz/mutate.c &&
    AFL_QUIET=1 build afl afl-clang-fast "-fsanitize=fuzzer $sanitize"
}
afl() { # afl TARGET SECONDS
  rm -rf "$dir/afl/$1"
  mkdir -p "$dir/afl"
  OJO_FUZZ_TARGET=$1 afl-fuzz -i "tests/fuzz/corpus/$1" -o "$dir/afl/$1" -V "$2" -t 5000 -m none -- "$dir/afl.program" \
    > "$dir/$1.afl.log" 2>&1 || return 1
  runs=$(sed -n 's/^execs_done *: *//p' "$dir/afl/$1/default/fuzzer_stats")
  found=$(find "$dir/afl/$1/default/crashes" "$dir/afl/$1/default/hangs" -name 'id*' | wc -l)
  echo "$1: AFL++ made ${runs:-0} runs and found $found"
  [ "${runs:-0}" -gt 0 ] && [ "$found" -eq 0 ]
}
lanes() { # lanes FUNCTION SECONDS: the targets, on two processors
  (for t in memory cat; do "$1" $t $(($2 / 2)) || touch "$dir/found/failed"; done) &
  for t in file directory recover; do "$1" $t $(($2 / 3)) || touch "$dir/found/failed"; done
  wait
}
fuzz_lane() {
  fuzz "$dir/libfuzzer.program" "$1" "$2" && figures "$1" && return
  tail -n 60 "$dir/$1.log"
  return 1
}

case ${1:-test} in
libfuzzer | afl)
  rm -f "$dir/found/failed"
  if [ "$1" = afl ]; then
    afl_works || { echo "fuzz.sh: afl-fuzz and afl-clang-fast are not there: install afl++"; exit 1; }
    afl_build && afl_flags && lanes afl "$2"
  else
    libfuzzer_works || { echo "fuzz.sh: clang has no -fsanitize=fuzzer here: install clang and libclang-rt-dev"; exit 1; }
    build libfuzzer clang "-fsanitize=fuzzer $sanitize" && lanes fuzz_lane "$2"
  fi || exit 1
  [ ! -e "$dir/found/failed" ] || { echo "fuzz.sh: found something: see $dir/found/ or $dir/afl/"; exit 1; }
  exit 0 ;;
merge)
  shift
  build libfuzzer clang "-fsanitize=fuzzer $sanitize" || exit 1
  for t in $targets; do mkdir -p "tests/fuzz/corpus/$t"; done
  for t in ${*:-$targets}; do
    mkdir -p "tests/fuzz/corpus/$t" "$dir/corpus/$t" "$TMPDIR/merged/$t"
    cp -r $(inputs "$t" | sed 's|\([^ ]*\)|\1/.|g') "$TMPDIR/merged/$t/" 2>/dev/null
    # by edges alone, and only small inputs: the corpus stays small, and its replay quick
    OJO_FUZZ_TARGET=$t "$dir/libfuzzer.program" -set_cover_merge=1 -use_counters=0 -max_len=1024 \
      "$TMPDIR/merged/$t" "$dir/corpus/$t" 2>&1 | sed -n "s/^MERGE-OUTER: \([0-9]* new\)/$t: \1/p"
    for input in "$TMPDIR/merged/$t"/*; do
      name=$(basename "$input")
      [ -n "$(find tests/fuzz/corpus -name "$name")" ] || cp "$input" "tests/fuzz/corpus/$t/"
    done
  done
  exit 0 ;;
esac

log=$dir/test.log
options=$sanitize
works "$CC" "$sanitize" 'int main(void) { return 0; }' || {
  options=
  skip sanitizers "$CC has no address sanitizer here: the corpus is replayed without"
}
if build replay "$CC" "$options -DFUZZ_MAIN" > "$log" 2>&1; then
  for t in $targets; do
    if OJO_FUZZ_TARGET=$t OJO_FUZZ_FOUND=$dir/found/$t "$dir/replay.program" $(inputs "$t") > "$log" 2>&1; then pass
    else fail "the corpus of $t" "$log"; fi
  done
else
  fail "the plain program" "$log"
fi

# The same bug for both drivers; the checks, the mutator and this script have to find it.
if ! planted replay "$CC" "$options -DFUZZ_MAIN" > "$log" 2>&1; then fail 'the plain program with a bug in it' "$log"
elif OJO_FUZZ_TARGET=memory OJO_FUZZ_FOUND=$dir/found/planted "$dir/replay.planted" --seed 1 --seconds 300 tests/fuzz/corpus/memory > "$log" 2>&1
then fail 'a planted bug is found by the plain program' "$log"
elif grep -q FOUND "$log"; then pass
else fail 'the plain program with a bug in it ends as it should' "$log"; fi
rm -f "$dir/found/planted"

seconds=${OJO_FUZZ_SECONDS:-}
if [ -z "$seconds" ]; then if [ "${OJO_CI:-0}" = 1 ]; then seconds=60; else seconds=10; fi; fi
each=$((seconds / 5))
[ $each -gt 0 ] || each=1
if ! libfuzzer_works; then
  skip libfuzzer 'clang has no -fsanitize=fuzzer here: install clang and libclang-rt-dev'
elif ! build libfuzzer clang "-fsanitize=fuzzer $sanitize" > "$log" 2>&1; then fail 'the program for libFuzzer' "$log"
else
  for t in $targets; do
    if fuzz "$dir/libfuzzer.program" "$t" $each; then
      pass
      echo "note: $(figures "$t")"
    else
      fail "fuzzing $t found something: $dir/found/" "$dir/$t.log"
    fi
  done
  if ! planted libfuzzer clang "-fsanitize=fuzzer $sanitize" > "$log" 2>&1; then fail 'the program for libFuzzer with a bug in it' "$log"
  elif fuzz "$dir/libfuzzer.planted" memory 300 -artifact_prefix="$dir/planted-"; then fail 'a planted bug is found by libFuzzer' "$dir/memory.log"
  elif grep -q FOUND "$dir/memory.log"; then pass
  else fail 'libFuzzer with a bug in it ends as it should' "$dir/memory.log"; fi
  rm -f "$dir"/planted-*
fi

if ! afl_works; then
  skip afl 'afl-fuzz and afl-clang-fast are not there: install afl++'
elif ! afl_build > "$log" 2>&1; then fail 'the program for AFL++' "$log"
else
  afl_flags
  if afl memory 8 > "$log" 2>&1; then pass; else fail 'AFL++ over the corpus of memory' "$log"; tail -n 20 "$dir/memory.afl.log"; fi
  sed 's/^/note: /' "$log"
fi

echo "fuzz: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
