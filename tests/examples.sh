#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs the examples that end by themselves, on and off, and looks at what they recorded. examples/4 has
# tests/transport.sh. All examples compile without a warning, by gcc and clang, as C11 and gnu11; examples/7 needs libbpf
# and clang for that, and root to run.
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

no_bpf=
[ -f "$BUILD/ojo_bpf.o" ] && echo '#include <bpf/libbpf.h>' | ${CC:-cc} -E -x c - >/dev/null 2>&1 || no_bpf=y
if [ $no_bpf ]; then
  skipped=$((skipped + 1))
  echo "skip: 7_kernel: libbpf-dev or clang is not installed"
fi

for compiler in gcc clang; do
  if ! command -v $compiler >/dev/null 2>&1; then
    skipped=$((skipped + 1))
    echo "skip: examples by $compiler: not installed"
    continue
  fi
  for file in examples/*.c; do
    [ $file = examples/7_kernel.c ] && [ $no_bpf ] && continue
    for standard in c11 gnu11; do
      if $compiler -std=$standard $strict -O2 -I. -DKERNEL_SIDE="\"$BUILD/ojo_bpf.o\"" -c -o "$work/object.o" "$file" > "$work/output" 2>&1; then pass
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

# Kernel and application in one trace. Random losses: what is checked holds for any.
story() { # what the CSV of the whole run must show; prints what it does not
  awk -F , -v bytes=1048576 '
    function wrong(what) { print "line " NR ": " what ": " $0; bad = 1 }
    NR == FNR { # the flows by their names, in our trace
      if ($4 == "FLOW" && $8 ~ /label=sender$/) sender = $2
      if ($4 == "FLOW" && $8 ~ /label=receiver$/) receiver = $2
      if ($4 == "SOCKET_BOUND" && $2 == sender) bound = 1
      if ($4 == "STREAM_LINK_PARENT" && $6 == receiver) linked = $2 # accepted: the kernel knew it first
      next
    }
    $2 == sender && $4 == "OFFSET_SENT" { if (asked != given) wrong("a send within another"); asked = $8; at = $1; calls++ }
    $2 == sender && $4 == "KERNEL_TCP_SEND" {
      taken += $6; sends++
      if (asked == given || taken > asked) wrong("the kernel took what the program did not give")
    }
    $2 == sender && $4 == "SEND_RETURNED" {
      given = $6
      if (given != asked || given != taken) wrong("the kernel took " taken " bytes, the program gave " asked)
    }
    $2 == sender && $4 == "KERNEL_TCP_RETRANSMIT" { again += $6; total = $8 }
    $2 == sender && $4 == "KERNEL_TCP_STATE" && $6 == 1 { established = 1 }
    $2 == sender && $4 == "KERNEL_TCP_RTT" { rtt++ }
    $2 == sender && $4 == "KERNEL_TCP_CWND" { cwnd++ }
    $2 == sender && $4 == "KERNEL_TCP_CONGESTION_STATE" { congestion++ }
    $2 == sender && $4 == "KERNEL_CONNECTION" { connection = $8 }
    $2 == linked && $4 == "KERNEL_TCP_RECEIVE" { got += $6; if (got > asked) wrong("received before it was sent") }
    $2 == receiver && $4 == "OFFSET_RECEIVED" { if ($8 != got) wrong("the kernel gave " got " bytes") }
    $2 == sender && $4 == "KERNEL_TCP_FINISHED" { finished = $8 }
    END {
      if (!bound) wrong("no SOCKET_BOUND")
      if (!established) wrong("no ESTABLISHED on the flow of the sender")
      if (connection !~ /7000/ || connection !~ /7_kernel/) wrong("KERNEL_CONNECTION: " connection)
      if (sends != calls || taken != bytes) wrong(sends " sends by the kernel of " taken " bytes, " calls " by the program")
      if (got != bytes) wrong(got " bytes received")
      if (!again || again != total) wrong(again " segments sent again, in total " total)
      if (!rtt || !cwnd || !congestion) wrong("no RTT, window or congestion state")
      if (finished !~ "bytes_out=" bytes "( |$)" || finished !~ "retransmits=" again "( |$)") wrong("KERNEL_TCP_FINISHED: " finished)
      exit bad
    }' "$1" "$1"
}
in_order() { # the story of the one segment, as its command prints it
  awk '
    function next_is(n, ok) { if (step == n - 1 && ok) step = n }
    { next_is(1, /OFFSET_SENT/); next_is(2, / KERNEL_TCP_SEND/); next_is(3, /KERNEL_TCP_RETRANSMIT/)
      next_is(4, /KERNEL_TCP_(RTT|CWND)/); next_is(5, /KERNEL_TCP_RECEIVE/); next_is(6, /OFFSET_RECEIVED/) }
    END { if (step != 6) { print "the story ends at step " step; exit 1 } }' "$1"
}
if [ ! $no_bpf ]; then
  OJO_DIR="$work/7" "$BUILD/7_kernel" > "$work/7.out" 2>&1
  status=$?
  if [ $status = 77 ]; then
    skipped=$((skipped + 1))
    echo "skip: 7_kernel: $(tail -n 1 "$work/7.out" | sed 's/^[a-z0-9_]*: //; s/^left out: //')"
  else
    if [ $status = 0 ] && grep -q 'tcp: received .* verified' "$work/7.out"; then pass
    else fail "7_kernel: exit code $status" "$work/7.out"; fi
    if grep -q ' events of the kernel.s, 0 lost' "$work/7.out"; then pass; else fail "7_kernel: lost events" "$work/7.out"; fi
    trace=$(sed -n 's/.*ojo-cat .*--trace \([0-9a-f]*\) .*/\1/p' "$work/7.out" | head -n 1)
    if "$BUILD/ojo-cat" -f csv --strict --trace "$trace" "$work/7" > "$work/7.csv" 2> "$work/output"; then pass
    else fail "7_kernel: its trace is whole" "$work/output"; fi
    if story "$work/7.csv" > "$work/output"; then pass; else fail "7_kernel: what the kernel did" "$work/output"; fi

    # The commands that it prints: each works, and the first one tells the story.
    n=0
    grep '^  ojo-cat ' "$work/7.out" > "$work/7.commands"
    while read -r command; do
      n=$((n + 1))
      if sh -c "$BUILD/$command" > "$work/7.told$n" 2> "$work/output" && [ -s "$work/7.told$n" ]; then pass
      else fail "7_kernel: $command" "$work/output"; fi
    done < "$work/7.commands"
    if [ $n -ge 4 ]; then pass; else fail "7_kernel: $n commands" "$work/7.out"; fi
    if in_order "$work/7.told1" > "$work/output"; then pass
    else cat "$work/7.told1" >> "$work/output"; fail "7_kernel: the story in order" "$work/output"; fi

    # Example 4's sockets: bound in its traces, seen by the kernel's probes in ours.
    "$BUILD/ojo-cat" -f csv --type SOCKET_BOUND,KERNEL_CONNECTION "$work/7" > "$work/7.udp" 2> /dev/null
    if awk -F , '
      $4 == "SOCKET_BOUND" { bound[$6] = 1; n++ }
      $4 == "KERNEL_CONNECTION" && /4_transport/ && /7001/ { seen[$6] = 1 }
      END { for (c in seen) { if (c in bound) same++ } exit !(n == 4 && same == 2) }' "$work/7.udp"; then pass
    else fail "7_kernel: example 4's sockets" "$work/7.udp"; fi
    if grep -q ',KERNEL_UDP_SEND,' "$work/7.csv" && grep -q ',KERNEL_UDP_RECEIVE,' "$work/7.csv"; then pass
    else fail "7_kernel: no UDP in its trace"; fi
  fi
fi

if [ $skipped = 0 ]; then echo "examples: $passed passed, $failed failed"
else echo "examples: $passed passed, $failed failed, $skipped skipped"; fi
[ $failed = 0 ]
