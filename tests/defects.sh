#!/bin/sh
# SPDX-License-Identifier: MIT
# Would the tests notice? Each defect here is one exact change of a copy of ojo.h that breaks an order which
# the header's comments call for; the test named with it must fail. A change whose text is not found exactly
# once is a failure as well: then the header has moved on and the defect must follow it.
#
#   OJO_DEFECTS="name name"   only these
set -u
cd "$(dirname "$0")/.." || exit 1
root=$(pwd)
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
work=$BUILD/tests/tmp/defects.$$
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

fail() { # fail NAME REASON [FILE]
  failed=$((failed + 1))
  echo "FAILED: $1: $2"
  [ $# -lt 3 ] || tail -n 5 "$3"
}

# defect NAME TEST OLD NEW [OLD NEW]...: TEST fails with OLD replaced by NEW. OLD may span lines.
defect() {
  name=$1 test=$2
  shift 2
  case " ${OJO_DEFECTS:-$name} " in *" $name "*) ;; *) return ;; esac
  mkdir -p "$work/$name"
  if ! python3 - "$work/$name/ojo.h" "$@" > "$work/output" 2>&1 <<'P'
import sys
text = open('ojo.h').read()
for old, new in zip(sys.argv[2::2], sys.argv[3::2]):
    if text.count(old) != 1: sys.exit('found %d times, not once: %s' % (text.count(old), old))
    text = text.replace(old, new)
open(sys.argv[1], 'w').write(text)
P
  then fail "$name" "the text to be changed" "$work/output"; return; fi
  if ! ${CC:-cc} -std=c11 -w -O1 -I"$work/$name" -I. -o "$work/$name/test" "tests/$test.c" -pthread > "$work/output" 2>&1; then
    fail "$name" "does not compile" "$work/output"
    return
  fi
  start=$(date +%s)
  OJO_KILL_STEPS_FIRST=1 BUILD=$work/$name timeout -k 5 "${OJO_DEFECT_SECONDS:-60}" "$work/$name/test" > "$work/output" 2>&1 < /dev/null
  status=$?
  if grep -q '^skip' "$work/output"; then
    echo "skip (not installable): $name: $test does not run here"
    skipped=$((skipped + 1))
  elif [ $status = 0 ]; then fail "$name" "$test does not notice" "$work/output"
  elif [ $status = 124 ] || [ $status = 137 ]; then fail "$name" "$test does not end" "$work/output"
  else
    passed=$((passed + 1))
    echo "$name: $test fails after $(($(date +%s) - start)) s: $(grep -m 1 -E 'FAILED|victim|recover|ssertion' "$work/output" | cut -c 1-100)"
  fi
  rm -rf "${work:?}/$name"
}
skipped=0

if ! command -v python3 >/dev/null 2>&1; then
  echo "skip: defects: python3 is not installed"
  echo "defects: 0 passed, 0 failed, 1 skipped"
  exit 0
fi

# The test that is not run on its own in this way elsewhere passes with the header as it is.
mkdir -p "$work/none"
if ${CC:-cc} -std=c11 -w -O1 -I. -o "$work/none/test" tests/interleave.c -pthread > "$work/output" 2>&1 &&
  BUILD=$work/none timeout 60 "$work/none/test" > "$work/output" 2>&1 < /dev/null; then passed=$((passed + 1))
else fail "no defect" "interleave fails" "$work/output"; fi

# ---- the record

marker='  ojo__hot.generation = (uint64_t)(uintptr_t)frame;
  __asm__ volatile("" ::: "memory");
  if (OJO__UNLIKELY(ojo__hot.owner'
cursor='  uint64_t at = __atomic_load_n(&chunk->committed, __ATOMIC_RELAXED); /* ours alone */
'
defect marker_late interleave "$marker" '  if (OJO__UNLIKELY(ojo__hot.owner' "$cursor" "$cursor"'  __asm__ volatile("" ::: "memory");
  ojo__hot.generation = (uint64_t)(uintptr_t)frame;
  __asm__ volatile("" ::: "memory");
'
defect owner_unchecked interleave 'if (OJO__UNLIKELY(ojo__hot.owner != generation)) {' 'if (0) {'
commit='  __atomic_store_n(&chunk->committed, at + OJO_SLOT_BYTES, __ATOMIC_RELEASE);
'
defect committed_early interleave '  slot->ts = raw ? raw : ojo__raw_now(t);
  slot->type = type;' "$commit"'  __asm__ volatile("" ::: "memory");
  slot->ts = raw ? raw : ojo__raw_now(t);
  slot->type = type;' "$commit"'  __asm__ volatile("" ::: "memory");
  ojo__hot.generation = generation;' '  __asm__ volatile("" ::: "memory");
  ojo__hot.generation = generation;'

# ---- the pool

defect tag_kept interleave '((head & ~(uint64_t)OJO__LIST_INDEX) + OJO__LIST_INDEX + 1)' '(head & ~(uint64_t)OJO__LIST_INDEX)'
hand='  if (old != OJO__NONE_LEASED) ojo__hand_off(core, thread, level, old);
'
leased='  OJO__STORE(&chunk->lease, (OJO__ADD(&pool->line_lease[0], 1) + 1) << 2 | OJO__LEASED);
'
defect push_after_lease interleave "$hand" '' "$leased" "$leased$hand" '  if (index == OJO__NONE) {
    if (OJO__PEEK(&core->sleeping))' '  if (index == OJO__NONE) {
'"  $hand"'    if (OJO__PEEK(&core->sleeping))'
exchange='  uint32_t newest = (uint32_t)(__atomic_exchange_n(&pool->line_full[0], 0, __ATOMIC_ACQUIRE) & OJO__LIST_INDEX);
'
defect exchange_before_note interleave "$exchange" '' '  core->noted_count = 0;
  for (int part' "$exchange"'  core->noted_count = 0;
  for (int part'
defect full_not_set interleave '    OJO__STORE(&chunk->lease, (chunk->lease & ~(uint64_t)3) | OJO__FULL);
' ''

# ---- the batch

defect batch_from_0 kill_steps '  pool->last_number = UINT64_MAX;' '  pool->last_number = UINT64_MAX;
  pool->batch_published = 1; /* the number of the first, as if both counted from 0 */'
defect harvested_early kill_steps '  uint64_t from = chunk->harvested;
' '  uint64_t from = chunk->harvested;
  OJO__STORE(&chunk->harvested, end);
'
taken='    OJO__STORE(&chunk->published, from);
'
number='    OJO__STORE(&chunk->batch, core->batch.number);
'
defect batch_before_published kill_steps "$taken$number" "$number$taken"
header='  ok = ok && ojo__write_all(core, &header, sizeof header, 0);
'
defect rename_early kill_steps "$header" '  bool early = ok && ojo__rename(core);
'"$header" 'if (!ok || !ojo__rename(core)) {' 'if (!ok || !early) {'
defect unlink_early kill_steps '  uint64_t number = core->batch.number, fresh = OJO__LOAD(&pool->threads_fresh);
' '  uint64_t number = core->batch.number, fresh = OJO__LOAD(&pool->threads_fresh);
  if (pool->open_batch == number) unlinkat(core->staging_fd, pool->staging_name, 0);
'
defect freed_early kill_steps '  if (!ok || !ojo__rename(core)) {' '  if (ok) ojo__free_taken(core);
  if (!ok || !ojo__rename(core)) {'

# ---- recovery

defect no_lock api 'flock(lock, LOCK_EX | LOCK_NB) != 0 || ' ''
unlink='    unlinkat(dead->staging_fd, pool->staging_name, 0);
  return count;'
defect recovery_unlinks_early kill_steps '  uint32_t count = 0;
  for (uint64_t i = 0; i <= pool->threads_fresh; i++)' '  uint32_t count = 0;
  unlinkat(dead->staging_fd, pool->staging_name, 0);
  for (uint64_t i = 0; i <= pool->threads_fresh; i++)'
defect done_not_noted kill_steps '    OJO__STORE(&pool->batch_published, pool->open_batch);
' ''

if [ $skipped = 0 ]; then echo "defects: $passed passed, $failed failed"
else echo "defects: $passed passed, $failed failed, $skipped skipped"; fi
[ $failed = 0 ]
