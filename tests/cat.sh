#!/bin/sh
# SPDX-License-Identifier: MIT
# ojo-cat: every option, every exit code, every format. Inputs come from cat_make.c, expected output from cat/.
#
#   tests/cat.sh           needs build/ojo-cat, a C compiler and a POSIX shell; python3 and script(1) if there
#   tests/cat.sh --write   writes cat/ from what ojo-cat prints now: review the difference
set -u
LC_ALL=C
export LC_ALL
unset NO_COLOR
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
cat=${OJO_CAT:-$BUILD/ojo-cat}
golden=$PWD/tests/cat
mkdir -p "$BUILD/tests/tmp"
work=$(mktemp -d "$BUILD/tests/tmp/cat.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
write=no
[ "${1-}" = --write ] && write=yes
passed=0 failed=0 skipped=0

pass() { passed=$((passed + 1)); }
fail() { # fail NAME [FILE...]: shows the files
  failed=$((failed + 1))
  echo "FAILED: $1"
  shift
  for file in "$@"; do sed 's/^/    /' "$file" | head -n 20; done
}
skip() { skipped=$((skipped + 1)); echo "skip: $1: $2"; }
same() { # same NAME FILE1 FILE2
  if cmp -s "$2" "$3"; then pass; else
    diff "$2" "$3" > "$work/diff"
    fail "$1" "$work/diff"
  fi
}
is() { # is NAME GOT WANT
  if [ "$2" = "$3" ]; then pass; else
    fail "$1"
    echo "    got  '$2'"
    echo "    want '$3'"
  fi
}
run() { # run CODE ARGUMENTS...: into $work/out and $work/err; a wrong exit code is a failure
  want=$1
  shift
  (cd "$work/in" && exec "$cat" "$@" < "${input:-/dev/null}") > "$work/out" 2> "$work/err"
  code=$?
  if [ "$code" = "$want" ]; then pass; else fail "exit code $code, not $want, of: ojo-cat $*" "$work/err"; fi
}
expect() { # expect FILE CODE ARGUMENTS...: the output is that of cat/FILE
  name=$1
  shift
  run "$@"
  [ $write = yes ] && cp "$work/out" "$golden/$name"
  same "$name: ojo-cat $*" "$golden/$name" "$work/out"
}
says() { # says NAME TEXT: on standard error
  if grep -qF -- "$2" "$work/err"; then pass; else fail "$1: stderr has no '$2'" "$work/err"; fi
}
silent() { if [ -s "$work/err" ]; then fail "$1: stderr is not empty" "$work/err"; else pass; fi; }
rows() { # rows NAME COUNT ARGUMENTS...: how many events are printed
  name=$1 count=$2
  shift 2
  run 0 -f ndjson "$@"
  is "$name: events of $*" "$(wc -l < "$work/out" | tr -d ' ')" "$count"
}
usage() { # usage TEXT ARGUMENTS...: exit code 2, a message with TEXT, nothing on stdout
  text=$1
  shift
  run 2 "$@"
  says "ojo-cat $*" "$text"
  [ -s "$work/out" ] && fail "ojo-cat $*: prints on stdout"
}

${CC:-cc} -std=c11 -O1 -o "$work/cat_make" tests/cat_make.c || exit 1
mkdir "$work/in"
"$work/cat_make" "$work/in" || exit 1

# ---- formats

expect story.csv 0 -f csv story
says 'drops are reported' '12 events dropped: pool full'
is 'one line per kind of loss, and nothing else' "$(wc -l < "$work/err" | tr -d ' ')" 1
expect story.csv 0 story # csv is the default where stdout is no terminal
expect story.csv 0 story/output
expect story.csv 0 story/output/trace_5000000000_1.bin story/output/trace_5000000000_0.bin
expect story.ndjson 0 -f ndjson story
expect story.json 0 -f json story
expect story.text 0 --format=text story
expect hostile.csv 0 -f csv hostile.bin
silent 'hostile strings'
expect hostile.ndjson 0 -f ndjson hostile.bin
expect hostile.json 0 -f json hostile.bin
expect hostile.text 0 -f text hostile.bin
expect numbers.csv 0 -f csv numbers.bin
expect numbers.ndjson 0 -f ndjson numbers.bin
expect meanings.text 0 -f text meanings.bin
expect v1.csv 0 -f csv v1
expect v1.csv 0 -f csv v1/raw/trace_1_0.bin
expect both.json 0 -f json story peer
says 'several traces are announced' '--trace'

# the story by hand, independent of the golden files
run 0 -f csv --type PACKET_SENT --limit 1 story
printf 'timestamp_ns,flow_id,event_type,name,category,payload,thread_id,extension\n1700000000003000000,5,2,PACKET_SENT,Packet,0,1,1252\n' > "$work/want"
same 'one row by hand' "$work/want" "$work/out"
run 0 -f ndjson --type 768 --limit 1 story
echo '{"timestamp_ns":1700000000002000000,"flow_id":5,"event_type":768,"name":"CWND_UPDATED","category":"CongestionControl","payload":12000,"thread_id":1,"extension":null}' > "$work/want"
same 'one object by hand' "$work/want" "$work/out"
escape=$(printf '\033')
for format in text ndjson json; do
  run 0 -f $format hostile.bin
  if grep -q "$escape" "$work/out"; then fail "$format lets an escape sequence through"; else pass; fi
done
run 0 --stats hostile.bin
if grep -q "$escape" "$work/out"; then fail "--stats lets an escape sequence through"; else pass; fi
run 0 --flows hostile.bin
if grep -q "$escape" "$work/out"; then fail "--flows lets an escape sequence through"; else pass; fi

if command -v python3 > /dev/null 2>&1; then
  if (cd "$work/in" && python3 "$golden/../cat.py" "$cat") > "$work/log" 2>&1; then pass; else
    fail 'json, ndjson and csv as Python reads them' "$work/log"
  fi
else
  skip 'json, ndjson and csv as Python reads them' 'python3 is not installed'
fi

# ---- inputs

input=$work/in/numbers.bin run 0 -f csv -
same 'standard input' "$golden/numbers.csv" "$work/out"
run 0 -f csv numbers.bin numbers.bin "$work/in/numbers.bin"
same 'a file named twice is read once' "$golden/numbers.csv" "$work/out"
ln "$work/in/numbers.bin" "$work/in/again.bin"
run 0 -f csv numbers.bin again.bin
same 'a file under two names is read once' "$golden/numbers.csv" "$work/out"
rm "$work/in/again.bin"
run 0 -f csv story story/output story/output/trace_5000000000_1.bin "$work/in/story"
same 'a directory named twice is read once' "$golden/story.csv" "$work/out"
expect empty.csv 0 -f csv empty
says 'an empty directory' 'empty: there is no trace in it'
is 'an empty directory: one line' "$(wc -l < "$work/err" | tr -d ' ')" 1
run 0 -f json empty
printf '{"trace":{},"events":[]}\n' > "$work/want"
same 'an empty trace as json' "$work/want" "$work/out"
run 0 -f ndjson empty
is 'an empty trace as ndjson' "$(wc -c < "$work/out" | tr -d ' ')" 0
run 1 -f csv nowhere
says 'a path that does not exist' nowhere
is 'nothing on stdout if nothing can be read' "$(wc -c < "$work/out" | tr -d ' ')" 0
echo 'no trace at all, but a text of more than 24 bytes' > "$work/in/garbage"
run 1 -f csv garbage
says 'garbage' garbage
: > "$work/in/nothing.bin"
dd if="$work/in/numbers.bin" of="$work/in/cut.bin" bs=1 count=1000 2> /dev/null
run 0 -f csv nowhere garbage numbers.bin
same 'bad files hide no good one' "$golden/numbers.csv" "$work/out"
says 'bad files are named' garbage
says 'bad files are named' nowhere
run 3 --strict -f csv garbage numbers.bin
same '--strict prints all the same' "$golden/numbers.csv" "$work/out"
run 0 -f csv cut.bin
says 'a truncated file' cut.bin
head -n "$(wc -l < "$work/out")" "$golden/numbers.csv" > "$work/want"
same 'a truncated file gives what is sound' "$work/want" "$work/out"
run 3 --strict -f csv cut.bin
run 3 --strict story
run 0 --strict numbers.bin
silent '--strict on a sound file'

run 3 --strict --limit 1 story
is '--strict --limit reads all, but prints no more' "$(wc -l < "$work/out" | tr -d ' ')" 2
says '--strict --limit' '12 events dropped: pool full'
run 0 --limit 1 story
run 3 --strict --limit 1 --flow 2073315333 story
says '--strict --limit with a filter' '12 events dropped: pool full'
size=$(wc -c < "$work/in/numbers.bin")
cp "$work/in/numbers.bin" "$work/in/inner.bin"
dd if=/dev/zero of="$work/in/inner.bin" bs=1 seek=$((size - 48)) count=48 conv=notrunc 2> /dev/null
run 3 --strict --limit 1 inner.bin
says '--strict --limit' 'never written'
run 0 --strict --limit 1 numbers.bin
# losses at times that are not asked for, in a run that is
run 0 --strict --until 1700000000015000000 story
silent 'losses at other times'
run 3 --strict --until 1700000000020000001 --type PACKET_SENT story
says 'losses at these times' '12 events dropped: pool full'
run 0 --strict --thread 1 story
silent 'losses of other threads'
run 3 --strict --thread 2 --flow 5 story
says 'losses of these threads' '12 events dropped: pool full'
run 0 near.bin
says 'one' '1 event dropped: pool full'

# snapshots that overlap: each event once, and each loss once
rows 'snapshots' 273 flight
says 'snapshots: what is missing from all of them' '130 events dropped: overwritten'
says 'snapshots: losses' '5 events dropped: nesting'
rows 'snapshots: PACKET_SENT' 270 --type PACKET_SENT flight
says 'snapshots: losses behind a filter' '130 events dropped: overwritten'
rows 'a lone snapshot' 51 flight/output/trace_5000000003_0.bin
says 'a lone snapshot' '100 events dropped: overwritten'
rows 'snapshots in another order' 273 flight/output/trace_5000000003_3.bin flight/output/trace_5000000003_1.bin \
  flight/output/trace_5000000003_0.bin flight/output/trace_5000000003_2.bin
run 0 -f csv --type EVENTS_DROPPED flight
cut -d, -f1,6,8 "$work/out" > "$work/got"
printf '%s\n' timestamp_ns,payload,extension \
  '1700000000000000000,100,first_ts=0 last_ts=100000 reason=overwritten source=0' \
  '1700000000000150000,5,first_ts=150000 last_ts=160000 reason=nesting source=0' \
  '1700000000000349000,30,first_ts=349000 last_ts=380000 reason=overwritten source=0' > "$work/want"
same 'snapshots: what is told of the gaps' "$work/want" "$work/got"
run 0 --stats flight
grep -q '^273 events in 399.*us, .*2 flows, 135 events dropped$' "$work/out" && pass || fail '--stats of snapshots' "$work/out"
grep -q '^PACKET_SENT  *270 ' "$work/out" && pass || fail '--stats of snapshots, types' "$work/out"
grep -q '^overwritten  *130$' "$work/out" && pass || fail '--stats of snapshots, losses' "$work/out"
run 3 --strict flight

run 0 -f text long.bin
is 'lines as long as they get' "$(wc -l < "$work/out" | tr -d ' ')" 202
mkdir "$work/in/story/staging"
: > "$work/pool"
echo "$work/pool" > "$work/in/story/staging/pool_1.link"
run 0 -f csv story
says 'the pool of a crashed tracer' 'staging/ holds 1 pool of crashed tracers'
same 'the pool of a crashed tracer is not shown' "$golden/story.csv" "$work/out"
says 'how to see the pool' 'ojo-cat story/staging/pool_*.link'
echo 'empty' > "$work/pool2"
mkdir "$work/in/empty/staging"
echo "$work/pool2" > "$work/in/empty/staging/pool_1.link"
run 3 --strict -f csv empty
says '--strict with the pool of a crashed tracer' 'staging/ holds 1 pool of crashed tracers'
run 0 -f csv empty
rm -r "$work/in/empty/staging"
run 1 --recover numbers.bin
says '--recover of a file' 'numbers.bin: not a directory'
run 1 --recover nowhere
says '--recover of nothing' 'nowhere: not found'
rm -r "$work/in/story/staging"

# the pool of a tracer that was killed, by its link and by itself; then recovered
cat > "$work/killed.c" <<'END'
#define OJO_IMPLEMENTATION
#include "ojo.h"
int main(int argc, char **argv) {
  ojo_tracer *t;
  ojo_desc d = {.dir = argv[1], .flush_interval_ms = 100000, .buffer_bytes = 4 << 20};
  if (ojo_open(&t, &d) != OJO_OK) return 1;
  for (uint64_t i = 0; i < 3; i++) ojo_packet_sent(t, 1, i);
  if (ojo_flush(t) != OJO_OK) return 1;
  for (uint64_t i = 3; i < 10; i++) ojo_packet_sent(t, 1, i);
  if (argc > 2) pause();
  raise(SIGKILL);
}
END
${CC:-cc} -std=gnu11 -O1 -I. -o "$work/killed" "$work/killed.c" -pthread || exit 1
"$work/killed" "$work/in/killed" 2> "$work/killed.err"
link=$(cd "$work/in" && echo killed/staging/pool_*.link)
pool=$(head -n 1 "$work/in/$link" 2> /dev/null)
if [ -e "$work/in/$link" ] && [ -e "$pool" ]; then
  rows 'a directory without its pool' 3 killed
  says 'a directory without its pool' 'ojo-cat killed/staging/pool_*.link'
  rows 'a pool by its link' 7 "$link"
  is 'what is in a pool' "$(sed 's/.*"payload":\([0-9]*\).*/\1/' "$work/out" | tr '\n' ' ')" '3 4 5 6 7 8 9 '
  rows 'a pool' 7 "$pool"
  silent 'a pool'
  rows 'a pool twice' 7 "$pool" "$link"
  rows 'a directory and its pool' 10 killed "$link"
  run 0 --strict killed "$link"
  silent '--strict with a pool that is shown'
  run 3 --strict killed
  rows 'a pool stays as it is' 7 "$link"
  rows 'a directory that is recovered' 0 --recover killed
  rows 'a directory that was recovered' 10 killed
  run 1 "$link"
  printf '%s\n' "$pool" > "$work/in/$link"
  run 1 "$link"
  says 'a pool that is gone' 'the pool that this link names is gone'
  rows 'a pool that is gone hides no trace' 10 "$link" killed
  rm "$work/in/$link"
  "$work/killed" "$work/in/alive" pause 2> /dev/null &
  pid=$!
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -n "$(ls "$work/in/alive/output" 2> /dev/null)" ] && break
    sleep 0.2
  done
  run 1 "$work/in/alive/staging/"pool_*.link
  says 'a pool whose tracer is alive' alive
  kill -KILL $pid
  wait $pid 2> /dev/null
  run 0 --recover alive
else
  skip 'the pool of a tracer that was killed' "it was not in /dev/shm: $(head -n 1 "$work/killed.err")"
fi
echo /etc/hostname > "$work/in/pool_0.link"
run 1 pool_0.link
says 'a link to something else' 'what this link names is no pool'

# ---- filters

rows all 44 story
rows flow 9 --flow 2073315333 story
rows flow 33 --flow 5 story
rows 'flow in hex' 33 --flow 0x5 story
rows flows 42 --flow 5,2073315333 story
rows 'no flow' 1 --flow 0 story
says 'losses elsewhere' '12 events dropped: pool full'
rows 'a flow that is not there' 0 --flow 99 story
says 'a flow that is not there' '--flow: no event is of flow 99'
rows 'flows, one of them not there' 9 --flow 2073315333,98 story
says 'flows, one of them not there' '--flow: no event is of flow 98'
grep -q 2073315333 "$work/err" && fail 'a flow that is there is not mentioned' "$work/err"
rows 'a chain that is not there' 0 --chain 99 story
says 'a chain that is not there' '--chain: no event is of flow 99'
run 0 --stats --flow 99 story
says '--stats of a flow that is not there' '--flow: no event is of flow 99'
run 0 --flow 5 --strict --since 1700000000045000000 --until 1700000000045000001 story
silent 'a flow that is there'
rows type 5 --type PACKET_SENT story
rows 'types, by name and number, lists and repeated' 11 --type packet_sent,3 --type 0x9 story
rows "the application's type" 10 --type "APP_$escape[31mTEXT
" hostile.bin
rows 'a type that nobody describes' 2 --type 0x010006 hostile.bin
rows category 11 --category CongestionControl story
rows 'category, by bit number, any case' 11 --category 3 story
rows categories 14 --category congestioncontrol,Stream story
rows "the application's category" 10 --category 'Grüße' hostile.bin
rows thread 4 --thread 2 story
rows threads 44 --thread 1,2 story
rows 'since, inclusive' 12 --since 1700000000050000000 story
rows 'until, exclusive' 32 --until 1700000000050000000 story
rows 'a range of time' 1 --since 1700000000046000000 --until 1700000000046000001 story
rows 'RFC 3339' 12 --since 2023-11-14T22:13:20.05Z story
rows 'RFC 3339 with a zone' 12 --since '2023-11-15 00:13:20.050+02:00' story
rows 'RFC 3339, the day' 44 --since 2023-11-14 --until 2023-11-15 story
rows 'RFC 3339, before everything' 0 --until 2023-11-14 story
rows 'a leap day' 0 --since 2024-02-29 story
rows 'relative to the end' 4 --since -5ms story
rows 'relative to the end, until' 40 --until -5ms story
rows 'relative, other units' 4 --since -5000us story
rows 'relative, other units' 4 --since -5000000ns story
rows 'relative, with decimals' 4 --since -0.005s story
rows 'relative, longer than the trace' 44 --since -1h story
rows limit 3 --limit 3 story
rows 'limit 0' 0 --limit 0 story
rows 'limit after filters' 2 --limit 2 --type PACKET_ACKED story
rows 'filters together' 2 --type PACKET_SENT --since 1700000000045000000 --flow 5 story
rows chain 42 --chain 5 story
rows 'the chain of a child' 42 --chain 2073315333 story
rows 'several traces' 49 story peer
rows 'one of several traces' 5 --trace 22 story peer
rows 'one of several traces, all digits' 44 --trace 11111111111111111111111111111111 story peer
input=$work/in/story/output/trace_5000000000_1.bin rows 'relative, of standard input' 4 --since -5ms -
input=$work/in/hostile.bin rows 'custom type, of standard input' 10 --type "APP_$escape[31mTEXT
" -

# ---- reports

expect stats.text 0 --stats story
run 0 --stats --type PACKET_RECEIVED,PACKET_SENT near.bin far.bin
sed -n '/^flow/,$p' "$work/out" | sed 's/  */ /g' > "$work/got"
printf '%s\n' 'flow events rate/s first last sent acked lost bytes trace' '5 far 1 - 1.00 us 1.00 us 0 0 0 - aaaaaaaa' \
  '5 near 1 - 1.00 us 1.00 us 1 0 0 1200 B 99999999' '6 path 1 1 - 2.00 us 2.00 us 0 0 0 - 99999999' |
  sort > "$work/want"
sort "$work/got" > "$work/sorted"
same '--stats of flows with one id in two traces' "$work/want" "$work/sorted"
expect flows.text 0 --flows story
says '--flows tells losses too' '12 events dropped: pool full'
run 3 --strict --flows story
expect packet.text 0 --packet 5:1 story peer
expect packet_last.text 0 --packet 0x5:4 --trace 11 story peer
expect packet_spurious.text 0 --packet 5:2 story
expect packet_received.text 0 --packet 9:4 peer
run 1 --packet 5:1000 story
says 'no such packet' 'no packet #1000 in flow 5'
says 'no such packet tells losses too' '12 events dropped: pool full'
expect packet_twins.text 0 --packet 5:3 near.bin far.bin
run 0 --packet 5:3 far.bin near.bin
same '--packet in the other order' "$golden/packet_twins.text" "$work/out"
run 0 --packet 5:1 peer story
same '--packet in the other order' "$golden/packet.text" "$work/out"
run 0 --stats live
grep -q '  1 file  ' "$work/out" && pass || fail '--stats of 1 file' "$work/out"
grep -q '^1 event in 0 ns, 1 flow, 0 events dropped$' "$work/out" && pass || fail '--stats of 1 event' "$work/out"
run 0 --stats late.bin
grep -q '^3 events in 45 ns, ' "$work/out" && pass || fail '--stats of events that come late' "$work/out"
says 'events that come late' 'times that its RUN denies'
"$work/cat_make" --flows "$work/in/flows.bin" 530000
run 0 --flows --flow 1 flows.bin
says 'an error of no one file' 'ojo-cat: more flows than the flow table holds'
rm "$work/in/flows.bin"
run 0 --plot PACKET_SENT live
grep -q '  1 event$' "$work/out" && pass || fail '--plot of 1 event' "$work/out"
run 0 --flows hostile.bin
grep -q ' "la.x1b\[31mbel .*\\"x\\"' "$work/out" && pass || fail '--flows escapes quotes' "$work/out"
expect plot.text 0 --plot CWND_UPDATED story
run 0 --plot PACING_RATE story
says 'nothing to plot' 'no such event'
run 0 --stats empty
run 0 --flows empty
run 0 --plot CWND_UPDATED empty
run 1 --packet 1:1 empty

# ---- usage

usage 'PATH is missing'
usage "--format: 'xml'" -f xml story
usage "--type: there is no event type 'NO_SUCH'" --type NO_SUCH story
usage "NO_SUCH" --plot NO_SUCH story
usage "there is no category 'NoSuch'" --category NoSuch story
usage "--category: '99'" --category 99 story
usage "--flow: 'x5'" --flow x5 story
usage "--flow: ''" --flow 1, story
usage "--flow: '18446744073709551616'" --flow 18446744073709551616 story
usage "--thread: '-1'" --thread -1 story
usage "--since: 'yesterday'" --since yesterday story
usage "--since: '2023-02-40'" --since 2023-02-40 story
usage "--since: '2023-02-29'" --since 2023-02-29 story
usage "--since: '2100-02-29'" --since 2100-02-29 story
usage "--until: '-5'" --until -5 story
usage "--until: '-5 parsecs'" --until '-5 parsecs' story
usage "--limit: 'ten'" --limit ten story
usage "--trace: 'xyz'" --trace xyz story
usage "--trace: 'ff' fits 0 traces of 2" --trace ff story peer
usage "--chain: '0'" --chain 0 story
usage "--packet: '5'" --packet 5 story
usage '--stats does not go with' --flows --stats story
usage '--follow does not go with' --follow --flows story
usage 'print text' -f csv --stats story
usage 'ojo-cat: unrecognized option' --nonsense story
usage 'requires an argument' story --limit
usage "is what is to be read" -o numbers.bin numbers.bin
usage "is a trace" -o story/output/trace_5000000000_0.bin story
run 0 -f csv story
same '-o spares the traces' "$golden/story.csv" "$work/out"
usage 'only once' - -
run 0 --help
grep -q '^usage: ojo-cat' "$work/out" && pass || fail '--help'
for option in format output flow chain type category thread since until trace limit follow stats flows packet plot strict help version; do
  grep -q -e "--$option" "$work/out" && pass || fail "--help names --$option"
  tr -d '\\' < tools/ojo-cat.1 | grep -q -e "--$option" && pass || fail "the man page names --$option"
done
run 0 --version
grep -q '^ojo-cat [0-9]' "$work/out" && pass || fail '--version'

# ---- output

run 0 -f csv -o "$work/file" numbers.bin
same '-o' "$golden/numbers.csv" "$work/file"
is '-o leaves stdout alone' "$(wc -c < "$work/out" | tr -d ' ')" 0
run 1 -o "$work/none/file" numbers.bin
says '-o into nowhere' "$work/none/file"
if [ -w /dev/full ]; then
  run 1 -o /dev/full numbers.bin
  says 'a full disk' /dev/full
else
  skip 'a full disk' 'there is no /dev/full'
fi
"$work/cat_make" --big "$work/big.bin" 1000000
(cd "$work" && "$cat" big.bin 2> "$work/err"; echo $? > "$work/code") | head -n 1 > "$work/out"
silent 'a closed pipe'
is 'a closed pipe ends it as it ends cat' "$(cat "$work/code")" 141
(trap '' PIPE; "$cat" "$work/big.bin" 2> "$work/err"; echo $? > "$work/code") | head -n 1 > "$work/out"
silent 'a closed pipe, SIGPIPE ignored by the parent'

# every event of a large file, in order, and private memory that does not grow with them
mkfifo "$work/fifo"
"$cat" -f csv "$work/big.bin" > "$work/fifo" 2> "$work/err" &
pid=$!
{
  head -c 30000000 > "$work/begin"
  grep -s RssAnon "/proc/$pid/status" > "$work/memory"
  cat > "$work/rest"
} < "$work/fifo"
wait $pid
is 'a million events' "$(cat "$work/begin" "$work/rest" | wc -l | tr -d ' ')" 1000001
cat "$work/begin" "$work/rest" | cut -d, -f1 | sed 1d | sort -c -n 2> /dev/null && pass || fail 'a million events, in order'
kib=$(sed 's/[^0-9]//g' "$work/memory")
if [ -n "$kib" ]; then
  [ "$kib" -lt 65536 ] && pass || fail "private memory is $kib KiB"
else
  skip 'private memory' '/proc/PID/status has no RssAnon'
fi
rm -f "$work/begin" "$work/rest"

# a file that shrinks while it is mapped: no SIGBUS, what was there, and a word about it
for left in 3000000 0; do
  for format in csv --stats --flows; do
    cp "$work/big.bin" "$work/shrinks.bin"
    case $format in
    csv) set -- -f csv "$work/shrinks.bin" ;;
    *) set -- $format "$work/in/story" "$work/shrinks.bin" ;;
    esac
    "$cat" "$@" > "$work/fifo" 2> "$work/err" &
    pid=$!
    {
      if [ "$format" = csv ]; then head -c 1000000 > "$work/begin"; else sleep 0.01; fi
      : | dd of="$work/shrinks.bin" bs=1 seek=$left 2> /dev/null
      cat > "$work/rest"
    } < "$work/fifo"
    wait $pid
    is "a file that shrinks to $left, $format: exit code" $? 0
    [ "$format" = csv ] || continue
    says "a file that shrinks to $left" 'shrank'
    is "a file that shrinks to $left: whole rows" "$(cat "$work/begin" "$work/rest" | awk -F, 'NF != 8' | wc -l | tr -d ' ')" 0
  done
done
rm -f "$work/begin" "$work/rest" "$work/shrinks.bin"

# ---- --follow

"$cat" --follow -f ndjson "$work/in/live" > "$work/out" 2> "$work/err" &
pid=$!
wait_for_lines() { # up to 10 s
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ "$(wc -l < "$work/out")" -ge "$1" ] && return 0
    sleep 0.5
  done
  return 1
}
wait_for_lines 1 && pass || fail '--follow prints what is there' "$work/err"
"$work/cat_make" --append "$work/in/live" 1
wait_for_lines 2 && pass || fail '--follow prints what comes' "$work/err"
"$work/cat_make" --append "$work/in/live" 2
wait_for_lines 3 && pass || fail '--follow prints what comes next' "$work/err"
kill -INT $pid
wait $pid
is '--follow ends with 0 when interrupted' $? 0
is '--follow prints each once' "$(wc -l < "$work/out" | tr -d ' ')" 3
"$cat" --follow -f json "$work/in/live" > "$work/out" 2> "$work/err" &
pid=$!
sleep 1
kill -TERM $pid
wait $pid
is '--follow closes the json object' "$(tail -n 1 "$work/out")" ']}'

"$cat" --follow --category Mine "$work/in/empty" > "$work/out" 2> "$work/err" &
pid=$!
sleep 0.5
kill -INT $pid
wait $pid
is '--follow takes a category whose trace may come' $? 0

# ---- on a terminal

if command -v script > /dev/null 2>&1 && script -qec true /dev/null > /dev/null 2>&1; then
  terminal() { (cd "$work/in" && TERM=xterm script -qec "$*" /dev/null < /dev/null) | tr -d '\r' > "$work/out"; }
  terminal "$cat" story
  grep -q '^# trace 11111111' "$work/out" && pass || fail 'text is the default on a terminal' "$work/out"
  grep -q "$escape\[32mPACKET_SENT" "$work/out" && pass || fail 'colours on a terminal' "$work/out"
  terminal NO_COLOR=1 "$cat" story
  grep -q "$escape" "$work/out" && fail 'NO_COLOR' "$work/out" || pass
  terminal NO_COLOR=1 "$cat" -f csv hostile.bin
  grep -q "$escape" "$work/out" && fail 'csv on a terminal lets an escape sequence through' || pass
  terminal NO_COLOR=1 "$cat" -f csv hostile.bin -o "$work/file"
  same 'csv into a file is exact also when run from a terminal' "$golden/hostile.csv" "$work/file"
else
  skip 'on a terminal' 'script(1) is not installed'
fi

if [ $skipped -gt 0 ]; then
  echo "cat: $passed passed, $failed failed, $skipped skipped"
else
  echo "cat: $passed passed, $failed failed"
fi
[ $failed = 0 ]
