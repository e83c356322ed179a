#!/bin/sh
# SPDX-License-Identifier: MIT
# ojo-top: options, exit codes and messages here; lines, traffic and terminals in top.py, as root where the kernel
# takes the probes, in a network namespace of its own where there can be one.
set -u
LC_ALL=C
export LC_ALL
unset NO_COLOR
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
top=${OJO_TOP:-$BUILD/ojo-top}
mkdir -p "$BUILD/tests/tmp"
work=$(mktemp -d "$BUILD/tests/tmp/top.XXXXXX") || exit 1
open=$(mktemp -d) || exit 1 # where nobody may go
trap 'rm -rf "$work" "$open"' EXIT
trap 'exit 1' HUP INT TERM
passed=0 failed=0 skipped=0

pass() { passed=$((passed + 1)); }
fail() { # fail NAME [FILE...]: shows the files
  failed=$((failed + 1))
  echo "FAILED: $1"
  shift
  for file in "$@"; do sed 's/^/    /' "$file" | head -n 20; done
}
skip() { skipped=$((skipped + 1)); echo "skip: $1: $2"; }
skip_fixed() { skipped=$((skipped + 1)); echo "skip (not installable): $1: $2"; }
finish() {
  echo "top: $passed passed, $failed failed, $skipped skipped"
  [ $failed = 0 ]
  exit
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
  "$top" "$@" > "$work/out" 2> "$work/err" < /dev/null
  code=$?
  if [ "$code" = "$want" ]; then pass; else fail "exit code $code, not $want, of: ojo-top $*" "$work/err"; fi
}
usage() { # usage TEXT ARGUMENTS...: exit code 2, a message with TEXT, nothing on stdout
  text=$1
  shift
  run 2 "$@"
  grep -qF -- "$text" "$work/err" && pass || fail "ojo-top $*: stderr has no '$text'" "$work/err"
  [ -s "$work/out" ] && fail "ojo-top $*: prints on stdout"
}

if [ ! -x "$top" ]; then
  skip ojo-top 'it is not built: clang, libbpf-dev and libncurses-dev make it'
  finish
fi

# ---- usage

usage "--interval: '0'" --interval 0
usage "--interval: '1x'" --interval 1x
usage "--interval: '-1'" --interval -1
usage "--interval: '1e3'" --interval 1e3
usage "--interval: ''" --interval ''
usage "--interval: '86401'" --interval 86401
usage "--count: '0'" --count 0
usage "--count: 'x'" --count x
usage "--pid: 'x'" -p x
usage "--pid: '0'" --pid 0
usage "--pid: ''" -p 1,
usage "--port: '65536'" --port 65536
usage "--port: '0'" --port 80,0
usage "--sort: there is no column 'nothing'" --sort nothing
usage "--udp-timeout: 'never'" --udp-timeout never
usage '--json does not go with --csv' --json --csv
usage '--record: the directory has no name' --record ''
usage 'ojo-top: unrecognized option' --nonsense
usage 'requires an argument' --sort
usage "'word': there are no arguments" word
run 0 --help
grep -q '^usage: ojo-top' "$work/out" && pass || fail '--help'
[ "$(awk 'length > 110' "$work/out" | wc -l)" -eq 0 ] && pass || fail '--help has long lines'
for option in batch json csv interval count sort raw pid port udp-timeout record help version; do
  grep -q -e "--$option" "$work/out" && pass || fail "--help names --$option"
  tr -d '\\' < tools/ojo-top.1 | grep -q -e "--$option" && pass || fail "the man page names --$option"
done
for key in proto local_addr local_port remote_addr remote_port pid comm state bytes_in bytes_out packets_in \
  packets_out rate_in rate_out rtt_us retransmits cwnd age_ms partial; do
  grep -q -w "$key" "$work/out" && pass || fail "--help names the column $key"
  grep -q -w "$key" tools/ojo-top.1 && pass || fail "the man page names $key"
done
grep -q 'no time: .*ts .*--record' "$work/out" && pass || fail '--help says that lines carry no time'
grep -q '^Lines carry no time' tools/ojo-top.1 && pass || fail 'the man page says that lines carry no time'
run 0 --version
grep -q '^ojo-top [0-9]' "$work/out" && pass || fail '--version'
if [ -w /dev/full ]; then
  "$top" --help > /dev/full 2> "$work/err"
  is '--help onto a full disk' $? 1
fi

# ---- without privileges

chmod 755 "$open"
cp "$top" "$open/ojo-top"
printf 'error: ojo-top requires root privileges. Run with sudo.\n' > "$work/message"
if [ "$(id -u)" != 0 ]; then
  nobody=
elif setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all true 2> "$work/err"; then
  nobody='setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all'
else
  skip 'without privileges' "setpriv: $(cat "$work/err")"
  nobody=false
fi
if [ "$nobody" != false ]; then
  for mode in --json --csv --batch ''; do
    $nobody "$open/ojo-top" $mode > "$work/out" 2> "$work/err" < /dev/null
    is "without privileges, $mode: exit code" $? 77
    cmp -s "$work/message" "$work/err" && pass || fail "without privileges, $mode: the message" "$work/err"
    [ -s "$work/out" ] && fail "without privileges, $mode: prints on stdout"
  done
  $nobody "$open/ojo-top" --version > "$work/out" 2> "$work/err"
  is '--version without privileges' $? 0
fi

# ---- with them

if [ "$(id -u)" != 0 ]; then
  skip_fixed 'with the kernel' 'needs root'
  finish
fi
"$top" --json --count 1 --interval 0.01 > "$work/out" 2> "$work/err"
code=$?
if [ $code = 77 ]; then
  skip_fixed 'with the kernel' 'bpf() takes no program with typed tracepoints here'
  finish
fi
is 'the first start' $code 0
[ $code = 0 ] || { sed 's/^/    /' "$work/err"; finish; }
if ! command -v python3 > /dev/null 2>&1; then
  skip 'with the kernel' 'python3 is not installed'
  finish
fi
own=
unshare -n true 2> /dev/null && command -v ip > /dev/null 2>&1 && own='unshare -n'
$own sh -c '[ -z "$0" ] || ip link set lo up; exec "$@"' "$own" \
  python3 tests/top.py "$top" "$BUILD/ojo-cat" "$work" "$@" > "$work/log" 2>&1
grep -v '^COUNTS' "$work/log"
if line=$(grep '^COUNTS' "$work/log"); then
  set -- $line
  passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
else
  fail 'top.py did not come to its end'
fi
finish
