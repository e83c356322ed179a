#!/bin/sh
# SPDX-License-Identifier: MIT
# What a pool costs that outlives a crash: the same program with its pool in /dev/shm and in private memory, by turns.
#
#   pool.sh DIR    rows of the case "pool" (see bench.h). BUILD: where bench/pool and bench/pool.private were built
set -eu
build=${BUILD:-build}
[ $# = 1 ] || { echo "usage: pool.sh DIR" >&2; exit 2; }
turns=15
[ "${BENCH_QUICK:-0}" != 1 ] || turns=7
[ "${BENCH_BRIEF:-0}" != 1 ] || turns=1
for turn in $(seq $turns); do
  "$build/bench/pool" "$1"
  "$build/bench/pool.private" "$1"
done 2> /dev/null | awk '
  function quantile(q,  i, j, x) {
    for (i = 2; i <= n; i++) { x = v[i]; for (j = i - 1; j > 0 && v[j] > x; j--) v[j + 1] = v[j]; v[j + 1] = x }
    i = int(q * n + 0.999999)
    return v[i < 1 ? 1 : i]
  }
  function row(call, pool, against,  i) {
    for (i = 1; i <= n; i++) v[i] = of[pool, call, i]
    printf "pool,%s; pool in %s,1,ns/event,%.4g,%.4g,%.4g,", call, name[pool], quantile(0), quantile(0.5), quantile(0.99)
    if (against) { for (i = 1; i <= n; i++) v[i] = of["shared", call, i] / of["private", call, i]
                   printf "%.3f,private memory", quantile(0.5) }
    else printf ","
    printf ",%d,%d,%s\n", n, lost, against ? "the median of the ratios of turns" : ""
  }
  { k[$1]++; of[$1, "ojo_record", k[$1]] = $2; of[$1, "ojo_record_at", k[$1]] = $3; lost += $4 }
  END {
    name["shared"] = "/dev/shm"; name["private"] = "private memory"
    n = k["shared"]
    if (!n) { print "pool.sh: left out: there is no room for a pool in /dev/shm" > "/dev/stderr"; exit }
    row("ojo_record", "private", 0); row("ojo_record", "shared", 1)
    row("ojo_record_at", "private", 0); row("ojo_record_at", "shared", 1)
  }'
