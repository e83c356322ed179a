#!/bin/sh
# SPDX-License-Identifier: MIT
# Does each benchmark still work? All of bench/run, as short as it goes; what it measures is not looked at, only that
# every group gives rows, that each row is whole, and that ojo lost nothing where it may not.
set -u
cd "$(dirname "$0")/.." || exit 1
export BUILD="${BUILD:-build}"
work=$BUILD/tests/tmp/bench.$$
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

check() { # check NAME COMMAND...: passes if the command does
  name=$1
  shift
  if "$@"; then passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $name"
  fi
}

make CC="${CC:-cc}" BUILD="$BUILD" bench-built > "$work/make" 2>&1 || cat "$work/make"
BENCH_BRIEF=1 RESULTS=$work/results BENCH_DIR=$work/traces bench/run > "$work/output" 2> "$work/talk"
check "bench/run" [ $? = 0 ]
rows=$work/results/results.csv
cat "$work/talk"

for name in 'hot' 'hot full speed' 'pool' 'rivals' 'contended' 'latency' 'transfer' 'sustained; files of 10 MiB' \
  'reader' 'memory' 'growth'; do
  check "rows of case $name" grep -q "^$name," "$rows"
done
check "each row has 12 fields, and numbers where they belong" awk -F , '
  NR == 1 { next }
  NF != 12 || $3 !~ /^[0-9]+$/ || $5 !~ /^[0-9.e+-]+$/ || $6 !~ /^[0-9.e+-]+$/ || $7 !~ /^[0-9.e+-]+$/ ||
      ($8 != "") != ($9 != "") || $10 !~ /^[0-9]+$/ || $11 !~ /^[0-9]*$/ || $5 > $6 + 0 || $6 > $7 + 0 {
    print "row " NR ": " $0; bad = 1
  }
  END { exit bad }' "$rows"
check "nothing is lost in bursts, and where the recorder waits" awk -F , '
  ($1 == "hot" || $1 == "pool" || $1 ~ /^sustained/ || $1 == "growth") && $11 > 0 { print; bad = 1 }
  END { exit bad }' "$rows"
check "the machine is named" grep -q '^compiler: .' "$work/results/machine.txt"

needs() { # needs COMMAND WHAT: a skip if the command is not installed
  command -v "$1" > /dev/null && return 0
  skipped=$((skipped + 1))
  echo "skip: $2: $1 is not installed"
  return 1
}
if needs hyperfine "ojo-cat's rates"; then check "rows of case ojo-cat" grep -q '^ojo-cat,' "$rows"; fi
if needs babeltrace2 "ojo-cat beside babeltrace2"; then check "babeltrace2" grep -q '^ojo-cat,babeltrace2' "$rows"; fi
if needs gnuplot "the chart"; then check "a chart" grep -q '</svg>' "$work/results/chart.svg"; fi
if needs lttng-sessiond "LTTng beside ojo"; then check "LTTng" grep -q '^rivals,lttng-ust' "$rows"; fi
if [ -e /usr/include/spdlog/async.h ]; then check "spdlog" grep -q '^rivals,spdlog' "$rows"
else skipped=$((skipped + 1)); echo "skip: spdlog beside ojo: libspdlog-dev is not installed"; fi

if grep -q '^kernel: left out' "$work/talk" || ! [ -x "$BUILD/bench/kernel" ]; then
  skipped=$((skipped + 1))
  echo "skip: the kernel probes' cost: $(grep '^kernel: left out' "$work/talk" || echo libbpf-dev or clang is not installed)"
else
  for name in 'tcp bulk' 'tcp ping-pong' 'udp' 'udp ping-pong' 'sustained'; do
    check "rows of case kernel $name" grep -q "^kernel $name," "$rows"
  done
  check "no event of the kernel's is lost" awk -F , '$1 ~ /^kernel / && $11 > 0 { print; bad = 1 } END { exit bad }' "$rows"
fi

echo "bench: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
