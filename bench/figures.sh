#!/bin/sh
# SPDX-License-Identifier: MIT
# The figures that README.md states, measured in one run: `make bench`. About two minutes and, for the
# last part, 6 GB of disk (BENCH_SMALL=1 leaves that part out). Rates are the best of three runs.
set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
figures=$BUILD/bench/figures
cat=$BUILD/ojo-cat
dir=$BUILD/bench/traces
rm -rf "$dir"
mkdir -p "$dir"
trap 'rm -rf "$dir"' EXIT

echo "machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, Linux $(uname -r)"
echo "compiler: $(${CC:-cc} --version | head -n 1)"
echo

"$figures" "$dir/hot"
rm -rf "$dir/hot"
echo

# What a pool that outlives a crash costs: the same source with and without it, by turns, the median of the ratios.
for run in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
  for build in "$figures" "$figures.private"; do
    "$build" pool "$dir/pool" 2> /dev/null
    rm -rf "$dir/pool"
  done
done | awk '
  function median(v, n,  i, j, x) {
    for (i = 2; i <= n; i++) { x = v[i]; for (j = i - 1; j > 0 && v[j] > x; j--) v[j + 1] = v[j]; v[j + 1] = x }
    return v[int((n + 1) / 2)]
  }
  $1 == "tmpfs" { record = $2; at = $3; next }
  $1 == "private" && record { n++; records[n] = record; ats[n] = at; r[n] = record / $2; a[n] = at / $3; record = 0 }
  END {
    if (!n) { print "pool in /dev/shm: not measured, there is no room in a tmpfs"; exit }
    printf "pool in /dev/shm: ojo_record %.2f ns, ", median(records, n)
    printf "x %.3f of private memory; ojo_record_at %.2f ns, ", median(r, n), median(ats, n)
    printf "x %.3f (medians of %d pairs of runs)\n", median(a, n), n
  }'
echo

events=10000000
"$figures" make "$dir/one" $events 1000000000
"$figures" scan "$(ls -S "$dir"/one/output/*.bin | head -n 1)"
"$figures" merge "$dir"
rm -rf "$dir"/merge*
echo

seconds() { # seconds COMMAND...: wall time of the best of three
  best=
  for run in 1 2 3; do
    start=$(date +%s%N)
    "$@" > /dev/null
    took=$(($(date +%s%N) - start))
    [ -n "$best" ] && [ "$best" -le "$took" ] || best=$took
  done
  echo "$best"
}
rate() { awk -v n="$1" -v ns="$2" 'BEGIN { printf "%.2f", n * 1000 / ns }'; }

for format in csv ndjson json text; do
  ns=$(seconds "$cat" -f $format "$dir/one")
  [ $format = csv ] && csv=$(rate $events "$ns")
  echo "ojo-cat -f $format: $(rate $events "$ns") M events/s"
done
if command -v babeltrace2 > /dev/null; then
  few=1000000
  "$figures" make "$dir/few" $few 1000000000
  "$figures" ctf "$dir/few" "$dir/ctf"
  lines=$(babeltrace2 "$dir/ctf" | wc -l)
  other=$(rate "$lines" "$(seconds babeltrace2 "$dir/ctf")")
  echo "babeltrace2 on the same events as CTF: $other M events/s ($lines lines); ojo-cat -f csv: x $(
    awk -v a="$csv" -v b="$other" 'BEGIN { printf "%.0f", a / b }')"
fi
rm -rf "$dir/one" "$dir/few" "$dir/ctf"
[ "${BENCH_SMALL:-0}" = 1 ] && exit 0
echo

# ojo-cat's own memory (RssAnon) while it reads 5 GB in 1,000 files: the peak of samples.
"$figures" make "$dir/many" 215000000 5000000
files=$(ls "$dir/many/output" | wc -l)
bytes=$(du -sb "$dir/many/output" | cut -f 1)
"$cat" -f csv "$dir/many" > /dev/null &
pid=$!
peak=0
while kill -0 $pid 2> /dev/null; do
  now=$(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' /proc/$pid/status 2> /dev/null || true)
  [ "${now:-0}" -gt "$peak" ] && peak=$now
  sleep 0.05
done
wait $pid
echo "ojo-cat -f csv over $files files, $bytes bytes: at most $peak KiB of its own memory"
