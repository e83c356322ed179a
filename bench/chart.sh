#!/bin/sh
# SPDX-License-Identifier: MIT
# The chart of README.md, as SVG on stdout: what one event costs the program that records it, ojo and others.
#
#   chart.sh RESULTS.csv
set -eu
rows=$1
data=$(mktemp)
trap 'rm -f "$data"' EXIT
# "label"<tab>1 thread<tab>2 threads, dearest first; LTTng, which takes no time from its caller, once; ojo's rows are medians over all its turns beside the others.
awk -F , '
  $2 !~ /it takes no time/ && $1 == "rivals" && $4 == "ns/event" && ($3 == 1 || $3 == 2) { v[$2, $3] += $6; n[$2, $3]++; seen[$2] = 1 }
  END {
    for (s in seen) if (n[s, 1] && n[s, 2])
      printf "%s\t%.4g\t%.4g\n", s, v[s, 1] / n[s, 1], v[s, 2] / n[s, 2]
  }' "$rows" | sort -t "$(printf '\t')" -k 2,2 -g -r > "$data"
[ -s "$data" ] || { echo "chart.sh: $rows has no rows of case rivals" >&2; exit 1; }
count=$(wc -l < "$data")
gnuplot << G
set terminal svg size 860,$((110 + 34 * count)) noenhanced font "sans-serif,13" background rgb "white"
text(ns) = sprintf(ns < 100 ? " %.1f" : " %.0f", ns)
set datafile separator "\t"
set label 1 "CPU time that a record costs its thread, in ns; log scale, less is better" at screen 0.02, screen 0.955 left
set style fill solid 0.9 noborder
set logscale x
set xrange [1:*]
set yrange [-0.6:$count - 0.4]
set grid xtics lc rgb "#dddddd"
set border 3
set tics nomirror out
set key at screen 0.98, screen 0.9 right top
set lmargin 36
set tmargin 3.5
plot "$data" using (0.5):0:(1):2:(\$0 - 0.02):(\$0 + 0.34):ytic(1) with boxxyerror lc rgb "#2a6f97" title "1 thread", \\
     "" using (0.5):0:(1):3:(\$0 - 0.36):(\$0 - 0.02) with boxxyerror lc rgb "#a9d6e5" title "2 threads", \\
     "" using 2:(\$0 + 0.16):(text(\$2)) with labels left font ",11" notitle, \\
     "" using 3:(\$0 - 0.19):(text(\$3)) with labels left font ",11" notitle
G
