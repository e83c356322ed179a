#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs examples/4_transport.c over bad links and verifies its traces; then takes each recording call out of
# it in turn, and makes it tell one lie in turn, and expects the verifier to notice.
#
# Environment: CC (cc), BUILD (build), OJO_TEST_SEED (1). When something fails, all of it is left in
# $BUILD/tests/tmp/transport.*; needs a C compiler and sh alone.
set -u
cd "$(dirname "$0")/.." || exit 1
CC=${CC:-cc}
BUILD=${BUILD:-build}
SEED=${OJO_TEST_SEED:-1}
source=examples/4_transport.c
mkdir -p "$BUILD/tests/tmp" && dir=$(mktemp -d "$BUILD/tests/tmp/transport.XXXXXX") || exit 1
passed=0 failed=0
echo "seed $SEED (OJO_TEST_SEED)"

pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "FAILED: $*"; }
finish() {
  if [ "$failed" = 0 ]; then rm -rf "$dir"; else echo "see $dir"; fi
  echo "transport: $passed passed, $failed failed"
  [ "$failed" = 0 ]
  exit
}

strict="-Wall -Wextra -Wpedantic -Wconversion -Wshadow"
$CC -std=gnu11 -O2 $strict -I. -o "$dir/4_transport" $source -pthread 2> "$dir/warnings" &&
  $CC -std=c11 -O1 -g $strict -I. -o "$dir/verify_transport" tests/verify_transport.c -pthread \
    2>> "$dir/warnings"
if [ $? != 0 ] || [ -s "$dir/warnings" ]; then
  cat "$dir/warnings"
  fail "the example or the verifier does not compile without warnings"
  [ -x "$dir/4_transport" ] && [ -x "$dir/verify_transport" ] || finish
else
  pass
fi

# run PROGRAM TRACE OPTIONS...: a transfer. It ends by itself, at the latest when a peer is silent.
run() {
  program=$1 trace=$2
  shift 2
  rm -rf "$trace"
  OJO_DIR=$trace "$program" "$@" > "$trace.out" 2>&1
}

# transfer NAME OPTIONS...: a transfer that must succeed and whose trace must be true.
transfer() {
  name=$1
  shift
  echo "$name: $*"
  if ! run "$dir/4_transport" "$dir/$name" "$@"; then
    cat "$dir/$name.out"
    fail "$name: the transfer"
  elif ! "$dir/verify_transport" "$dir/$name" > "$dir/$name.verify" 2>&1; then
    cat "$dir/$name.out" "$dir/$name.verify"
    fail "$name: the trace is not true"
  else
    pass
    rm -rf "$dir/$name"
  fi
}

bad="--reorder 3 --duplicate 1 --damage 0.5"
transfer loss0 --seed "$SEED" --bytes 8M --loss 0 $bad
transfer loss1 --seed "$SEED" --bytes 8M --loss 1 $bad
transfer loss5 --seed "$SEED" --bytes 2M --loss 5 $bad
transfer loss20 --seed "$SEED" --bytes 300K --loss 20 $bad
transfer clean --seed "$SEED" --bytes 20M --loss 0
transfer delay --seed "$SEED" --bytes 500K --loss 1 --reorder 5 --delay-ms 5
transfer credit --seed "$SEED" --bytes 300K --loss 2 --window 20K --stream-window 7K
transfer streams --seed "$SEED" --bytes 300K --loss 5 --streams 64 --window 40K --stream-window 2000 $bad
transfer one --seed "$SEED" --bytes 1M --loss 1 --streams 1 --packet-bytes 9000
transfer small --seed "$SEED" --bytes 2 --loss 10 $bad
transfer empty --seed "$SEED" --bytes 0 --loss 10 $bad

# The far end's file, byte for byte, sent from a file.
if run "$dir/4_transport" "$dir/file" --seed "$SEED" --file $source --output "$dir/copy" --loss 5 &&
   cmp -s $source "$dir/copy"; then pass; else fail "--file and --output"; fi

# A client whose server never answers: it gives up, and its trace says why.
alone="--client 9 --idle-ms 200"
run "$dir/4_transport" "$dir/alone" $alone
if [ $? = 1 ] && "$dir/verify_transport" --alone "$dir/alone"; then pass; else fail "a client alone"; fi

# ---- mutation: each recording call in turn -------------------------------------------------------------
# A call is taken out by giving it NULL for its tracer or, where it is one of the file's own record_
# functions, by an empty statement. mutate N prints the source without the N-th; mutate 0 their number.
mutate() {
  awk -v want="$1" '
    { line = $0; out = ""
      while (match(line, /ojo_[a-z_]+\((c->)?trace, |[ )]record_[a-z]+\(c, [^;]*;/)) {
        call = substr(line, RSTART, RLENGTH)
        out = out substr(line, 1, RSTART - 1)
        line = substr(line, RSTART + RLENGTH)
        if (call !~ /^ojo_now/ && ++n == want) {
          if (call ~ /^ojo/) sub(/\(.*/, "(NULL, ", call)
          else call = substr(call, 1, 1) ";"
          where = NR ": " $0
        }
        out = out call
      }
      if (want) print out line
    }
    END { if (!want) print n; else print where > "/dev/stderr" }' $source
}

# Lies: sed scripts, each of which makes the transport do or record something else than the verifier proves.
cat > "$dir/lies" <<'END'
s/\(ojo_packet_sent_sized_at(.*p->bytes\))/\1 + 1)/
s/ojo_packet_sent_sized_at(c->trace, now,/ojo_packet_sent_sized_at(c->trace, now + 1,/
s/\(ojo_datagram_received_sized_at(.*bytes\), 1)/\1 - 1, 1)/
s/\(ojo_packet_retransmit_at(.*again\),/\1 + 1,/
s/\(ojo_ack_sent_sized_at(.*delay_us\))/\1 + 1)/
s/return OJO_LIMITED_CWND;/return OJO_LIMITED_APPLICATION;/
s/? OJO_LIMITED_CONNECTION_CREDIT : OJO_LIMITED_STREAM_CREDIT/? OJO_LIMITED_STREAM_CREDIT : OJO_LIMITED_CONNECTION_CREDIT/
s/c->cwnd = max_u64(c->cwnd \/ 2,/c->cwnd = max_u64(c->cwnd * 3 \/ 4,/
s/if (p->number < c->recovery_end) return; .. one reduction/if (p->number == 0) return; \/* one reduction/
s/if (c->cwnd < c->ssthresh) c->cwnd += p->bytes;/if (c->cwnd < c->ssthresh) c->cwnd += 2 * p->bytes;/
s/7 \* c->rtt_smoothed/6 * c->rtt_smoothed/
s/PACKET_THRESHOLD = 3,/PACKET_THRESHOLD = 2,/
s/ojo_packet_acked_sized_at(c->trace, now, c->flow, p->number,/ojo_packet_acked_sized_at(c->trace, now, c->flow, p->number ^ 1,/
s/if (p->in_flight || closing(c)) c->timer_from_ns = now;/if (p->in_flight || closing(c)) c->timer_from_ns = now + 1;/
END

# A mutant is tried on links and windows that together bring about all that the transport can do, until the
# verifier notices.
try_mutant() {
  m=$dir/mutant$1
  if [ "$1" -le "$calls" ]; then
    mutate "$1" > "$m.c" 2> "$m.where"
    sed -i 's/^/without line /' "$m.where"
  else
    sed -n "$(($1 - calls))p" "$dir/lies" > "$m.where"
    sed -f "$m.where" $source > "$m.c"
    if cmp -s "$m.c" $source; then
      echo "this lie no longer fits $source"
      return 1
    fi
  fi
  if ! $CC -std=gnu11 -O0 -w -I. -o "$m" "$m.c" -pthread 2> "$m.out"; then
    cat "$m.out"
    return 1
  fi
  worse="--reorder 6 --duplicate 3 --damage 2"
  for options in "--loss 0 --bytes 150K --window 30K --stream-window 60K" \
                 "--loss 6 --bytes 200K --window 60K --stream-window 12K --seed $SEED $worse" \
                 "--loss 0 --bytes 150K --window 200K --stream-window 4K" "$alone" \
                 "--loss 20 --bytes 100K --window 20K --stream-window 4K --seed $SEED $worse" \
                 "--loss 15 --bytes 200K --window 60K --stream-window 12K --seed $((SEED + 1)) $worse"; do
    run "$m" "$m.trace" $options
    status=$?
    one= expected=0
    [ "$options" = "$alone" ] && one=--alone expected=1
    if [ $status != $expected ]; then
      echo "the transfer failed"
      cat "$m.trace.out"
      return 1
    fi
    if ! "$dir/verify_transport" $one "$m.trace" > "$m.verify" 2>&1; then
      echo "$options: $(head -n 1 "$m.verify")"
      return 0
    fi
  done
  echo "not noticed"
  return 1
}

worker() { # every second one
  n=$1
  while [ "$n" -le "$count" ]; do
    if try_mutant "$n" > "$dir/result$n"; then echo caught; else echo missed; fi > "$dir/caught$n"
    rm -rf "$dir/mutant$n" "$dir/mutant$n.trace" "$dir/mutant$n.c"
    n=$((n + 2))
  done
}

calls=$(mutate 0)
count=$((calls + $(wc -l < "$dir/lies")))
echo "$calls recording calls, $((count - calls)) lies"
[ "$calls" -ge 50 ] || fail "only $calls recording calls found: the pattern no longer fits $source"
worker 1 &
worker 2 &
wait
n=1
while [ "$n" -le "$count" ]; do
  if grep -q caught "$dir/caught$n"; then
    pass
    printf 'caught: %s\n    %s\n' "$(cat "$dir/mutant$n.where")" "$(cat "$dir/result$n")"
  else
    fail "$(cat "$dir/mutant$n.where"): $(cat "$dir/result$n")"
  fi
  n=$((n + 1))
done
finish
