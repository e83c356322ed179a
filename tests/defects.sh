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
commit='  __atomic_store_n(&chunk->committed, at + OJO_SLOT_BYTES, __ATOMIC_RELEASE); /* model: R5 */
'
defect committed_early interleave '  slot->ts = raw ? raw : ojo__raw_now(t);
  slot->type = type;' "$commit"'  __asm__ volatile("" ::: "memory");
  slot->ts = raw ? raw : ojo__raw_now(t);
  slot->type = type;' "$commit"'  __asm__ volatile("" ::: "memory");
  ojo__hot.generation = generation;' '  __asm__ volatile("" ::: "memory");
  ojo__hot.generation = generation;'

# ---- the pool

defect tag_kept interleave 'uint64_t next = ((head & ~(uint64_t)OJO__LIST_INDEX) + OJO__LIST_INDEX + 1)' \
  'uint64_t next = (head & ~(uint64_t)OJO__LIST_INDEX)'
late='  if (old != OJO__NONE_LEASED) {
    OJO__STORE(&counts->attempts, old->ordinal + ojo__chunk_events(old) + (counts->lost - old->lost));
    OJO__SET(&old->flags, OJO__CHUNK_HANDED);
    ojo__hand_off(core, old);
  }
'
leased='  OJO__STORE(&chunk->lease, (OJO__ADD(&pool->line_lease[0], 1) + 1) << OJO__LEASE_SHIFT | OJO__LEASED);
'
defect push_after_lease interleave '  ojo__give_up(core, context, level);
  /* `taking`' '  struct ojo__chunk *old = context->lease[level].chunk;
  context->lease[level].chunk = OJO__NONE_LEASED;
  /* `taking`' "$leased" "$leased$late" '  if (index == OJO__NONE) {
    if (OJO__PEEK(&core->sleeping))' '  if (index == OJO__NONE) {
'"$late"'    if (OJO__PEEK(&core->sleeping))'
exchange='  uint32_t newest = (uint32_t)(__atomic_exchange_n(&pool->line_full[0], 0, __ATOMIC_ACQUIRE) & OJO__LIST_INDEX);
'
defect exchange_before_note interleave "$exchange" '' '  core->noted_count = 0;
  for (int part' "$exchange"'  core->noted_count = 0;
  for (int part'
defect full_not_set interleave '    OJO__STORE(&chunk->lease, (chunk->lease & ~(uint64_t)OJO__STATE) | OJO__FULL); /* model: G4 */
' ''

# ---- the batch

defect batch_from_0 kill_steps '  pool->last_number = UINT64_MAX;' '  pool->last_number = UINT64_MAX;
  pool->batch_published = 1; /* the number of the first, as if both counted from 0 */'
defect harvested_early kill_steps '  if (chunk->batch != core->batch.number) {
' '  OJO__STORE(&chunk->harvested, (uint32_t)end);
  if (chunk->batch != core->batch.number) {
'
taken='    OJO__STORE(&chunk->published, from);             /* model: T1 */
'
number='    OJO__STORE(&chunk->batch, core->batch.number); /* model: T2 */
'
defect batch_before_published kill_steps "$taken$number" "$number$taken"
defect rename_early kill_steps '/* Ends a file'"'"'s slots, and' 'static bool ojo__rename(struct ojo__core *core);
/* Ends a file'"'"'s slots, and' '  return ok && ojo__write(core, &header, sizeof header, 0, false); /* model: E3 */' '  bool early = ok && ojo__rename(core);
  return ojo__write(core, &header, sizeof header, 0, false) && early;' 'if (!ok || !ojo__rename(core)) { /* model: E4 */' 'if (!ok) {'
defect unlink_early kill_steps '  uint64_t number = core->batch.number, fresh = ojo__threads(core);
' '  uint64_t number = core->batch.number, fresh = ojo__threads(core);
  if (pool->open_batch == number) unlinkat(core->staging_fd, core->batch.name, 0);
'
defect freed_early kill_steps '  if (!ok || !ojo__rename(core)) {' '  if (ok) ojo__free_taken(core);
  if (!ok || !ojo__rename(core)) {'

# ---- recovery

defect no_lock api 'bool locked = ours && flock(lock, LOCK_EX | LOCK_NB) == 0;' 'bool locked = ours;'
defect recovery_unlinks_early kill_steps '  ojo__dead_list(dead, &done);
  if (OJO__LOAD(&pool->going' '  if (ojo__batch_name(pool, name)) unlinkat(dead->staging_fd, name, 0);
  ojo__dead_list(dead, &done);
  if (OJO__LOAD(&pool->going'
if [ $skipped = 0 ]; then echo "defects: $passed passed, $failed failed"
else echo "defects: $passed passed, $failed failed, $skipped skipped"; fi
[ $failed = 0 ]
