#!/bin/bash
# SPDX-License-Identifier: MIT
#
# transfer.sh - what tracing costs a whole transport: the CPU time of examples/4_transport.c's transfer
#
#   transfer.sh DIR    writes below DIR only, and removes what it wrote. BUILD: where the programs are (build)
#
# User and system time of all processes of a transfer: both ends, their flushers, and LTTng's daemons. By turns: "off"
# is compiled out, "idle" is compiled in and not switched on, "on" records; the others are the same transport with
# another tracer (transport_rival.h). Rivals take part in every fifth round. What was not built is left out. A transfer
# varies by some percent with how the two ends happen to be scheduled: a ratio is the median of the ratios of rounds.
set -eu
cd "$(dirname "$0")/.."
[ $# = 1 ] || { echo "usage: bench/transfer.sh DIR" >&2; exit 2; }
BUILD=${BUILD:-build}
programs=$BUILD/bench/transfer
bytes=400M rounds=16 losses=1
[ "${BENCH_QUICK:-0}" != 1 ] || bytes=20M rounds=2 losses=1
[ "${BENCH_BRIEF:-0}" != 1 ] || bytes=1M rounds=1 losses=1
export LC_ALL=C TIMEFORMAT='%U %S'

# Each call of the transport must go to the rivals too, or they would have less to do.
for call in $(grep -v '^ \*' examples/4_transport.c | grep -o '\bojo_[a-z_]*(' | sort -u | tr -d '('); do
  case $call in ojo_unwrap | ojo_flow_close) continue ;; esac # no recording; only in a comment
  grep -q "^#define $call " bench/transport_rival.h || { echo "transport_rival.h has no $call" >&2; exit 1; }
done

mkdir -p "$1"
dir=$(cd "$1" && pwd)/transfer
rm -rf "$dir"
mkdir "$dir"
trap 'rm -rf "$dir"' EXIT

# program_of VARIANT: the file
program_of() {
  case $1 in
  on | idle) echo "$BUILD/4_transport" ;;
  *) echo "$programs/$1" ;;
  esac
}

# ticks PID: user and system time of a process and of its children that live, in hundredths of a second
ticks() {
  cat "/proc/$1/stat" $(sed 's:[^ ][^ ]*:/proc/&/stat:g' "/proc/$1/task/$1/children") |
    sed 's/.*) //' | awk '{ sum += $12 + $13 } END { print sum }'
}

# measure VARIANT LOSS: appends "CPU-ms packets" to its results. Exported: LTTng's runs inside of its session.
measure() {
  local before=0 after=0 traces=$dir/traces
  mkdir -p "$traces"
  [ "$1" != lttng ] || before=$(ticks "$OJO_BENCH_LTTNG_PID")
  [ "$1" != idle ] || traces=
  { time OJO_DIR=$traces "$(program_of "$1")" --bytes $bytes --loss "$2" > "$dir/out" 2>> "$dir/talk"; } 2> "$dir/time"
  [ "$1" != lttng ] || after=$(ticks "$OJO_BENCH_LTTNG_PID")
  # A run that failed ends the benchmark: the transport's exit code is that of `time`.
  awk -v ticks=$((after - before)) -v round="$round" 'NR == FNR { cpu = ($1 + $2) * 1000; next }
    { sub(/.* sent /, ""); packets += $1 } END { printf "%.0f %d %d\n", cpu + 10 * ticks, packets, round }' \
    "$dir/time" "$dir/out" >> "$dir/results.$1.$2"
  if [ "$1" = on ] && [ ! -e "$dir/dropped.$2" ] && [ -x "$BUILD/ojo-cat" ]; then
    "$BUILD/ojo-cat" -f csv "$traces" 2> /dev/null | awk -F , \
      '/,EVENTS_DROPPED,/ { sum += $6 } END { print sum + 0 }' > "$dir/dropped.$2"
  fi
  rm -rf "$dir/traces"
}
export -f measure ticks program_of
export BUILD programs bytes dir

variants=
for variant in off idle on fprintf fwrite write ring spdlog lttng; do
  if [ -x "$(program_of $variant)" ]; then variants="$variants $variant"
  else echo "transfer: left out: $(program_of $variant) was not built" >&2; fi
done
export round
for ((round = 0; round < rounds; round++)); do
  for loss in $losses; do
    for variant in $variants; do
      case $variant in
      off | idle | on) measure $variant $loss ;;
      lttng)
        if [ $((round % 5)) = 0 ] && [ -x "$BUILD/bench/rivals/lttng" ]; then
          "$BUILD/bench/rivals/lttng" "$dir" bash -euc "measure lttng $loss" 2>> "$dir/lttng.talk.$loss"
        fi ;;
      *) [ $((round % 5)) != 0 ] || measure $variant $loss ;;
      esac
    done
  done
done

for loss in $losses; do
  for variant in $variants; do
    if [ ! -e "$dir/results.$variant.$loss" ]; then
      echo "transfer: left out: $variant" >&2
      continue
    fi
    case $variant in
    off) subject="compiled out" ;; idle) subject="not switched on" ;; on) subject=ojo ;;
    fwrite) subject="fwrite under a mutex" ;; write) subject="write(2)" ;; ring) subject="ring by CAS" ;;
    spdlog) subject="spdlog async" ;; lttng) subject="lttng-ust" ;; *) subject=$variant ;;
    esac
    case $variant in
    on) dropped=$(cat "$dir/dropped.$loss" 2> /dev/null || true) ;;
    lttng) dropped=$(awk '/discarded [0-9]+$/ { sum += $NF } END { print sum + 0 }' "$dir/lttng.talk.$loss") ;;
    *) dropped= ;;
    esac
    of="$loss % loss"
    sort -n "$dir/results.$variant.$loss" | awk -v subject="$subject; $of" -v against="compiled out; $of" -v dropped="$dropped" '
      function rank(q) { r = int(q * n + 0.999999); return r < 1 ? 1 : r }
      NR == FNR { off[$3] = $1; next }
      { cpu[++n] = $1; packets += $2; ratio[n] = $1 / off[$3] }
      END {
        printf "transfer,%s,2,ms CPU,%.4g,%.4g,%.4g,", subject, cpu[1], cpu[rank(0.5)], cpu[rank(0.99)]
        for (i = 2; i <= n; i++) # sorts the ratios
          for (k = i; k > 1 && ratio[k] < ratio[k - 1]; k--) { swap = ratio[k]; ratio[k] = ratio[k - 1]; ratio[k - 1] = swap }
        if (subject ~ /^compiled out/) printf ",,"
        else printf "%.3f,%s,", ratio[rank(0.5)], against
        printf "%d,%s,the ratio is the median of the ratios of rounds; %d packets in the mean\n", n, dropped, packets / n
      }' "$dir/results.off.$loss" -
  done
done
grep -h '^lost' "$dir/talk" >&2 || true # what rivals that can lose events lost
