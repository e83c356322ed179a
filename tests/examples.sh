#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs the examples that end by themselves, on and off, and looks at what they recorded. examples/4 has
# tests/transport.sh. All examples compile without a warning, by gcc and clang, as C11 and gnu11.
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
work=$BUILD/tests/tmp/examples.$$
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
strict='-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror'
passed=0 failed=0 skipped=0
pass() { passed=$((passed + 1)); }
fail() {
  failed=$((failed + 1))
  echo "FAILED: $1"
  [ $# -lt 2 ] || head -n 20 "$2"
}

for compiler in gcc clang; do
  if ! command -v $compiler >/dev/null 2>&1; then
    skipped=$((skipped + 1))
    echo "skip: examples by $compiler: not installed"
    continue
  fi
  for file in examples/*.c; do
    for standard in c11 gnu11; do
      if $compiler -std=$standard $strict -O2 -I. -c -o "$work/object.o" "$file" > "$work/output" 2>&1; then pass
      else fail "$compiler -std=$standard $file" "$work/output"; fi
    done
  done
done

# example NAME PATTERN...: it runs with and without OJO_DIR, and the CSV has a line for each pattern.
example() {
  name=$1
  shift
  if env -u OJO_DIR "$BUILD/$name" > "$work/output" 2>&1; then pass
  else fail "$name without OJO_DIR: exit code $?" "$work/output"; fi
  if OJO_DIR="$work/$name" "$BUILD/$name" > "$work/output" 2>&1; then pass
  else fail "$name with OJO_DIR: exit code $?" "$work/output"; fi
  if "$BUILD/ojo-cat" -f csv --strict "$work/$name" > "$work/$name.csv" 2> "$work/output" && [ ! -s "$work/output" ]; then pass
  else fail "$name: its trace is whole" "$work/output"; fi
  for pattern in "$@"; do
    if grep -qE "$pattern" "$work/$name.csv"; then pass; else fail "$name: nothing like $pattern in its trace"; fi
  done
}
lines() { # lines NAME PATTERN WANT
  got=$(grep -cE "$2" "$work/$1.csv")
  if [ "$got" = "$3" ]; then pass; else fail "$1: $got lines of $2, not $3"; fi
}

example 1_first_trace ',FLOW,Meta,.*role=client' ',PACKET_SENT,Packet,0,1,1200$' ',PACKET_ACKED,Packet,0,1,1200$'
lines 1_first_trace . 4

# Without comments, braces, includes and the line that is main: what a user has to write.
code=$(sed -e 's|/\*.*\*/||' -e '/^ \*/d' -e '/^\/\*/d' -e '/^#include <\|^}\|^int main\|^ *$/d' examples/1_first_trace.c | wc -l)
if [ "$code" -lt 10 ]; then pass; else fail "the first example has $code lines of code, not under ten"; fi

example 2_custom_types ',65536,VIDEO_FRAME,Video,0,1,24000$' ',VIDEO_QUALITY,Video,3,1,$' ',VIDEO_GAP,Video,12,1,14$' \
  ',VIDEO_NOTE,Video,10,1,key frame$' ',VIDEO_HEADER,Video,20,1,80600014$'
if grep -q 'not recorded' "$work/2_custom_types.csv"; then fail "2_custom_types: what was switched off is recorded"; else pass; fi

example 3_threads 'label=worker' 'label=receiver'
lines 3_threads ',PACKET_SENT,' 80000
lines 3_threads ',OFFSET_SENT,' 80000
lines 3_threads ',PACKET_RECEIVED,' 20000
lines 3_threads ',CONNECTION_CLOSED,' 5

example 5_tcp_info 'FLOW,Meta,.*protocol=tcp' ',CWND_UPDATED,' ',RTT_SAMPLE,.*smoothed_ns=' ',CONNECTION_STATE,Connection,3,'

# A snapshot tells what was overwritten, which --strict takes for a loss.
OJO_DIR="$work/6" "$BUILD/6_flight_recorder" > "$work/output" 2>&1 || fail "6_flight_recorder: exit code $?" "$work/output"
"$BUILD/ojo-cat" -f csv "$work/6" > "$work/6.csv" 2> "$work/output" || fail "6_flight_recorder: its snapshot" "$work/output"
lines 6 ',PACKET_SENT,Packet,900000,' 1
lines 6 ',PACKET_SENT,Packet,900001,' 0
lines 6 ',RTT_SAMPLE,CongestionControl,412000000,' 1
lines 6 ',EVENTS_DROPPED,Meta,' 1
kept=$(grep -c ',PACKET_SENT,' "$work/6.csv")
if [ "$kept" -gt 120000 ]; then pass; else fail "6_flight_recorder: only $kept packets kept in 8 MiB"; fi

if [ $skipped = 0 ]; then echo "examples: $passed passed, $failed failed"
else echo "examples: $passed passed, $failed failed, $skipped skipped"; fi
[ $failed = 0 ]
