#!/bin/sh
# SPDX-License-Identifier: MIT
# How fast ojo-cat converts, against babeltrace2 on the equal CTF trace and a loop of fprintf; and how much memory it
# takes over 1,000 files.
#
#   cat.sh DIR   rows of the case "ojo-cat" (see bench.h); writes traces in DIR, and removes them
#
# Whole commands, by turns, by hyperfine; their output goes to /dev/null. "per core" is CPU time, user and system.
# BUILD: where ojo-cat and bench/make_trace were built (default build).
set -eu
build=$(cd "${BUILD:-$(dirname "$0")/../build}" && pwd)
cat=$build/ojo-cat
make_trace=$build/bench/make_trace
[ $# = 1 ] || { echo "usage: cat.sh DIR" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)/cat.$$
trap 'rm -rf "$dir"; rmdir "$1" 2> /dev/null || :' EXIT
trap 'exit 1' INT TERM
mkdir "$dir"
say() { echo "cat.sh: $*" >&2; }

events=2000000 rounds=5 files=1000 file_events=50000
[ "${BENCH_QUICK:-0}" = 1 ] && events=1000000 rounds=2 file_events=5000
[ "${BENCH_BRIEF:-0}" = 1 ] && events=20000 rounds=2 files=20 file_events=5000

rows() { # rows AGAINST SUBJECT... < "SUBJECT<tab>VALUE" lines; UNIT and NOTE from the environment
  awk -F '\t' -v unit="$unit" -v note="$note" '
    function quantile(s, q,  i, j, x, rank) {
      for (i = 2; i <= n[s]; i++) {
        x = v[s, i]
        for (j = i - 1; j > 0 && v[s, j] > x; j--) v[s, j + 1] = v[s, j]
        v[s, j + 1] = x
      }
      rank = int(q * n[s] + 0.999999)
      return v[s, rank < 1 ? 1 : rank]
    }
    BEGIN { against = ARGV[1]; for (i = 2; i < ARGC; i++) subject[i] = ARGV[i]; count = ARGC; ARGC = 1 }
    { v[$1, ++n[$1]] = $2 }
    END {
      for (i = 2; i < count; i++) {
        s = subject[i]
        if (!n[s]) continue
        printf "ojo-cat,%s,1,%s,%.4g,%.4g,%.4g,", s, unit, quantile(s, 0), quantile(s, 0.5), quantile(s, 0.99)
        if (n[against] && s != against) printf "%.3f,%s,", quantile(s, 0.5) / quantile(against, 0.5), against
        else printf ",,"
        printf "%d,,%s\n", n[s], note
      }
    }' "$@"
}

speed() {
  "$make_trace" ojo "$dir/one" 1 $events
  set -- "fprintf" "$make_trace fprintf $events"
  subjects="fprintf"
  against=fprintf
  if command -v babeltrace2 > /dev/null; then
    "$make_trace" ctf "$dir/one" "$dir/ctf"
    lines=$(babeltrace2 "$dir/ctf" | wc -l)
    [ "$lines" = $events ] || { say "babeltrace2 prints $lines lines for $events events"; exit 1; }
    set -- "$@" "babeltrace2" "babeltrace2 $dir/ctf"
    against=babeltrace2
  else
    say "babeltrace2 is not installed: not compared with it"
  fi
  for format in csv ndjson json text sql qvis perfetto; do
    status=0
    "$cat" -f $format /dev/null > /dev/null 2>&1 || status=$?
    [ $status = 2 ] && continue # it has no such format
    set -- "$@" "ojo-cat -f $format" "$cat -f $format $dir/one"
  done
  names=$dir/names
  : > "$names"
  count=$#
  while [ "$count" -gt 0 ]; do # the names apart from the commands, which stay in "$@"
    echo "$1" >> "$names"
    set -- "$@" "$2"
    shift 2
    count=$((count - 2))
  done
  for round in $(seq 0 $rounds); do
    hyperfine --shell=none --runs 1 --export-csv "$dir/round.csv" "$@" > /dev/null 2> "$dir/talk" ||
      { command cat "$dir/talk" >&2; exit 1; }
    [ "$round" = 0 ] && continue # warms up
    # command,mean,stddev,median,user,system,min,max: of one run
    sed 1d "$dir/round.csv" | awk -F , '{ print $2 "," $5 + $6 }' | paste "$names" - >> "$dir/times"
  done
  while IFS= read -r name; do set -- "$@" "$name"; done < "$names"
  shift $(($# / 2))
  note="$events events"
  for unit in "M events/s per core" "M events/s"; do
    tr , '\t' < "$dir/times" | awk -F '\t' -v OFS='\t' -v events=$events -v core="${unit##*/s}" '
      { print $1, events / 1e6 / (core ? $3 : $2) }' > "$dir/rates"
    rows $against "$@" < "$dir/rates"
    [ $against = fprintf ] || rows fprintf "ojo-cat -f csv" < "$dir/rates"
  done
}

# Its own memory (RssAnon) while it reads: the peak of samples.
memory() {
  "$make_trace" ojo "$dir/many" $files $file_events
  for round in $(seq $rounds); do
    "$cat" -f csv "$dir/many" > /dev/null &
    pid=$!
    peak=0
    while kill -0 $pid 2> /dev/null; do
      now=$(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' /proc/$pid/status 2> /dev/null || :)
      [ "${now:-0}" -gt $peak ] && peak=$now
      sleep 0.01
    done
    wait $pid
    printf 'ojo-cat -f csv\t%s\n' "$peak" >> "$dir/peaks"
  done
  unit=KiB note="its own memory (RssAnon) over $files files of $file_events events"
  rows none "ojo-cat -f csv" < "$dir/peaks"
}

if command -v hyperfine > /dev/null; then speed; else say "hyperfine is not installed: speeds are not measured"; fi
memory
