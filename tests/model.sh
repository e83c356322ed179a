#!/bin/sh
# SPDX-License-Identifier: MIT
# Checks the models of ojo.h's lock-free parts in tests/model/ with spin: every state is visited, none breaks
# an assertion or ends where it must not, and every statement is reached but those that say "unreached".
# Then each model with each of its defects (DEFECT_name in it): spin must find an error.
#
#   OJO_MODEL_DEEP=1      also a failure and a killed recoverer in one run: a minute and 2 GB more
#   OJO_MODEL_SECONDS     that one search may take (default 300)
set -u
cd "$(dirname "$0")/.." || exit 1
root=$(pwd)
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
work=$BUILD/tests/tmp/model.$$
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

if ! command -v spin >/dev/null 2>&1; then
  echo "skip: model: spin is not installed"
  echo "model: 0 passed, 0 failed, 1 skipped"
  exit 0
fi

pass() { passed=$((passed + 1)); }
fail() { # fail NAME REASON [FILE]: shows FILE, or what spin and pan said
  failed=$((failed + 1))
  echo "FAILED: $1: $2"
  head -n 40 "${3:-$work/output}"
}

pan() { # pan MODEL OPTION...: its output is in $work/output. False: it does not compile, or takes too long
  file=$root/tests/model/$1.pml
  shift
  rm -f "$work"/pan*
  (cd "$work" && spin "$@" -a "$file") > "$work/output" 2>&1 &&
    (cd "$work" && ${CC:-cc} ${OPTIMISE:--O2} -w -DSAFETY -DNOFAIR -DCOLLAPSE -DMEMLIM=3000 -o pan pan.c) >> "$work/output" 2>&1 || return 1
  (cd "$work" && timeout "${OJO_MODEL_SECONDS:-300}" ./pan -m1000000) > "$work/output" 2>&1
}

# The lines of a model that no state reaches, but those that say so and ends of processes that never end.
unreached() { # unreached MODEL
  sed -n 's/^[^"]*\.pml:\([0-9]*\), state [0-9]*, "\(.*\)"$/\1 \2/p' "$work/output" | while read -r line what; do
    [ "$what" = "-end-" ] || sed -n "${line}p" "tests/model/$1.pml" | grep -q unreached || echo "line $line: $what"
  done | sort -u
}

complete() { # complete MODEL OPTION...: no error, and nothing left out; adds to $work/MODEL.unreached
  name="model $*"
  if ! pan "$@"; then
    fail "$name" "spin, the compiler or the time"
    return
  fi
  states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' "$work/output")
  if [ -z "$states" ] || ! grep -q 'errors: 0$' "$work/output"; then fail "$name" "errors"
  elif grep -qE 'max search depth too small|out of memory|Search not completed|memory limit' "$work/output"; then
    fail "$name" "the search is not complete"
  else
    pass
    echo "note: $name: $states states, no error"
  fi
  unreached "$1" > "$work/left"
  if [ -e "$work/$1.unreached" ]; then comm -12 "$work/$1.unreached" "$work/left" > "$work/both"
  else cp "$work/left" "$work/both"; fi
  mv "$work/both" "$work/$1.unreached"
}

complete record
complete pool
complete pool -DEVENTS0=2 -DEVENTS1=1 -DEVENTS2=1 -DCHUNKS=3 -DSLOTS=1
complete batch -DFAILURES=1 -DKILLS=0
complete batch -DFAILURES=0 -DKILLS=1
[ "${OJO_MODEL_DEEP:-0}" = 0 ] || complete batch -DFAILURES=1 -DKILLS=1
for model in record pool batch; do
  if [ -s $work/$model.unreached ]; then fail "model $model: every statement is reached" "not so" "$work/$model.unreached"
  else pass; fi
done

OPTIMISE=-O1 # these searches end soon; compiling takes longer
for model in record pool batch; do
  for defect in $(grep -o 'DEFECT_[a-z_0-9]*' tests/model/$model.pml | grep -v '^DEFECT_name$' | sort -u); do
    if ! pan $model "-D$defect"; then fail "model $model with $defect" "spin, the compiler or the time"
    elif grep -qE '^pan:1: (assertion violated|invalid end state)' "$work/output"; then pass
    else fail "model $model with $defect" "no error is found"; fi
  done
done

echo "model: $passed passed, $failed failed"
[ $failed = 0 ]
