/* SPDX-License-Identifier: MIT
 *
 * interleave.c - orders that races would need luck to show. The processor's trap flag raises SIGTRAP behind
 * each instruction of a record, a flusher's pass or a pop; the handler does there what another thread, a
 * handler or the flusher might do at that moment. Small and the same each time: tests/defects.sh runs it
 * on headers in which one such order is turned round.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* REG_EFL */
#endif
#define OJO_IMPLEMENTATION
#include "ojo.h"
#include "check.h"
#include "tally.h"
#include <ucontext.h>

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
static void trap_on(void) { __asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc"); }
static void trap_off(void) { __asm__ volatile("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc"); }
static void handle(void (*handler)(int)) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTRAP, &action, NULL);
}

static char directory[256];
static ojo_tracer *open_tracer(char *dir, size_t bytes) {
  ojo_tracer *t;
  ojo_desc d;
  memset(&d, 0, sizeof d);
  d.dir = check_directory("interleave", dir, bytes);
  d.buffer_bytes = 32 << 20;
  d.reserve_bytes = 1;
  d.no_thread = true;
  if (!check(ojo_open(&t, &d) == OJO_OK && t, "ojo_open")) exit(1);
  return t;
}

/* One event of flow 1 or 2: of a slot, or of `slots` more. */
static uint64_t recorded[3];
static void record(ojo_tracer *t, uint32_t flow, unsigned slots) {
  static ojo_event bytes[3][255];
  uint64_t payload = sealed(flow, recorded[flow]);
  for (unsigned i = 0; i < slots; i++) bytes[flow][i].payload = payload;
  if (slots) ojo_record_ext(t, flow, 0x010000, payload, bytes[flow], slots * 24);
  else ojo_record(t, flow, OJO_PACKET_SENT, payload);
  recorded[flow]++;
}

/* Closed, the tracer's files hold each event once and in order, and nothing was lost. */
static void close_and_check(ojo_tracer *t, const char *dir, const char *what, uint64_t one, uint64_t two) {
  struct tally *s = tally_new();
  ojo_stats q = ojo_query_stats(t);
  check(q.recorded == one + two && q.dropped == 0, "%s: recorded %llu, dropped %llu", what,
        (unsigned long long)q.recorded, (unsigned long long)q.dropped);
  check(ojo_close(t) == OJO_OK, "%s: close", what);
  s->unordered = 2; /* a handler's are of two levels */
  tally_dir(s, dir, false);
  tally_check(s, what, one + two);
  check(s->events[1] == one && s->next[1] == one, "%s: %llu of %llu events", what, (unsigned long long)s->events[1],
        (unsigned long long)one);
  check(s->events[2] == two && (!two || s->sum == two * (two - 1) / 2), "%s: %llu of %llu events of the handler", what,
        (unsigned long long)s->events[2], (unsigned long long)two);
  free(s);
  check_remove(dir);
}

static ojo_tracer *tracer, *other;
static volatile unsigned traps, problems, changes;

/* A handler that records, at each instruction of a record. */
static volatile unsigned trap_at, at_trap; /* the trap at which something is done, of this record or pop; 0: each */
static void on_record(int signal) {
  (void)signal;
  traps++;
  if (trap_at && ++at_trap != trap_at) return;
  record(other, 2, traps % 16 ? 0 : 250);
}
static void test_record_in_record(bool apart) {
  char dir[256];
  tracer = other = open_tracer(directory, sizeof directory);
  if (apart) other = open_tracer(dir, sizeof dir);
  memset(recorded, 0, sizeof recorded);
  record(tracer, 1, 0); /* registering a thread blocks signals */
  record(other, 2, 0);
  handle(on_record);
  trap_at = 0;
  for (unsigned i = 0; i < 40; i++) {
    trap_on();
    record(tracer, 1, i % 8 == 7 ? 20 : 0);
    trap_off();
  }
  for (trap_at = 1; trap_at < 100; trap_at++) {
    record(tracer, 1, 0); /* the hot lease is this tracer's again, till the handler takes it */
    at_trap = 0;
    trap_on();
    record(tracer, 1, 0);
    trap_off();
  }
  if (apart) {
    close_and_check(tracer, directory, "a record interrupted by another tracer's", recorded[1], 0);
    close_and_check(other, dir, "the other tracer's records", 0, recorded[2]);
  } else {
    struct tally *s = tally_new(); /* the handler's are of two levels, which have no order */
    check(ojo_close(tracer) == OJO_OK, "a record in a record: close");
    s->unordered = 2;
    tally_dir(s, directory, false);
    tally_check(s, "a record in a record", recorded[1] + recorded[2]);
    check(s->events[1] == recorded[1] && s->events[2] == recorded[2] && s->sum == recorded[2] * (recorded[2] - 1) / 2 &&
            s->nested > 0, "a record in a record: %llu + %llu events, %llu nested", (unsigned long long)s->events[1],
          (unsigned long long)s->events[2], (unsigned long long)s->nested);
    free(s);
    check_remove(directory);
  }
}

/* A flusher's pass at each instruction of a record and of a change of chunks. */
static void on_record_flush(int signal) {
  (void)signal;
  traps++;
  problems += !ojo__pass(tracer->core, true);
}
static void test_pass_in_record(void) {
  tracer = open_tracer(directory, sizeof directory);
  memset(recorded, 0, sizeof recorded);
  traps = problems = 0;
  record(tracer, 1, 0);
  handle(on_record_flush);
  for (unsigned i = 0; i < 60; i++) {
    bool step = i < 6 || i % 11 == 10; /* some long ones fill the chunk; every 11th changes it */
    if (step) trap_on();
    record(tracer, 1, i < 6 ? 0 : i % 11 == 10 ? 3 : 250);
    if (step) trap_off();
    if (!step) record(tracer, 1, 0);
  }
  check(problems == 0 && traps > 500, "a pass in a record: %u of %u passes failed", problems, traps);
  close_and_check(tracer, directory, "a pass in a record", recorded[1], 0);
}

/* At each instruction of a record the pool's words must do for a recoverer: it orders a level's chunks by
 * their ordinals, which must tell those that hold events apart. */
static void on_record_look(int signal) {
  (void)signal;
  struct ojo__core *core = tracer->core;
  traps++;
  for (uint64_t i = 0; i < core->pool->line_fresh[0]; i++)
    for (uint64_t k = 0; k < i; k++) {
      struct ojo__chunk *a = &core->chunks[i], *b = &core->chunks[k];
      if ((a->lease & 3) == OJO__FREE || (b->lease & 3) == OJO__FREE || !a->committed || !b->committed) continue;
      problems += a->thread == b->thread && a->level == b->level && a->ordinal == b->ordinal;
      changes = (unsigned)i;
    }
}
static void test_look_in_record(void) {
  tracer = open_tracer(directory, sizeof directory);
  memset(recorded, 0, sizeof recorded);
  traps = problems = changes = 0;
  record(tracer, 1, 0);
  handle(on_record_look);
  for (unsigned i = 0; i < 30; i++) {
    if (i % 10 == 9) trap_on();
    record(tracer, 1, i % 10 == 9 ? 16 : 250);
    if (i % 10 == 9) trap_off();
  }
  check(problems == 0 && changes >= 2, "chunks of one level have ordinals of their own: not at %u of %u instructions",
        problems, traps);
  close_and_check(tracer, directory, "looking on", recorded[1], 0);
}

/* Records that change chunks, at each instruction of a pass, which moves what they hand off. */
static void on_pass(int signal, siginfo_t *info, void *context) {
  (void)signal, (void)info;
  if (++traps % 4 == 0) record(tracer, 1, 250);
  if (traps == 1200) ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~0x100; /* the chunks are gathered by now */
}
static void test_record_in_pass(void) {
  tracer = open_tracer(directory, sizeof directory);
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_pass;
  action.sa_flags = SA_RESTART | SA_SIGINFO;
  sigaction(SIGTRAP, &action, NULL);
  memset(recorded, 0, sizeof recorded);
  record(tracer, 1, 0);
  for (unsigned i = 0; i < 6; i++) {
    traps = 0;
    for (unsigned k = 0; k < 13 * i; k++) record(tracer, 1, 250);
    trap_on();
    bool ok = ojo__pass_locked(tracer->core, true);
    trap_off();
    check(ok, "a record in a pass: the pass");
  }
  check(traps == 1200, "a record in a pass: %u traps", traps);
  close_and_check(tracer, directory, "a record in a pass", recorded[1], 0);
}

/* Another's two pops and one push at each instruction of a pop: nothing is handed out twice. */
static uint64_t list;
static struct ojo__chunk elements[4];
static volatile uint32_t theirs;
static void on_pop(int signal) {
  (void)signal;
  if (++at_trap != trap_at) return;
  uint32_t first = ojo__pop(&list, &elements->next, sizeof *elements);
  theirs = ojo__pop(&list, &elements->next, sizeof *elements);
  if (first != OJO__NONE) ojo__push(&list, &elements->next, sizeof *elements, first);
}
static void test_pop_in_pop(void) {
  handle(on_pop);
  bool once = true;
  for (trap_at = 1, at_trap = 1; at_trap >= trap_at - 1; trap_at++) { /* until the pop has fewer instructions */
    unsigned seen[4] = {0, 0, 0, 0};
    list = 0;
    for (uint32_t i = 0; i < 4; i++) ojo__push(&list, &elements->next, sizeof *elements, i);
    at_trap = 0;
    theirs = OJO__NONE;
    trap_on();
    uint32_t ours = ojo__pop(&list, &elements->next, sizeof *elements);
    trap_off();
    if (ours < 4) seen[ours]++;
    if (theirs < 4) seen[theirs]++;
    for (uint32_t i; (i = ojo__pop(&list, &elements->next, sizeof *elements)) != OJO__NONE && i < 4 && seen[i] < 3;) seen[i]++;
    for (int i = 0; i < 4; i++) once = once && seen[i] == 1;
  }
  check(once && trap_at > 8, "a pop in a pop: each element is handed out once, %u instructions", trap_at);
}

int main(void) {
  test_pop_in_pop();
  test_record_in_record(false);
  test_record_in_record(true);
  test_look_in_record();
  test_pass_in_record();
  test_record_in_pass();
  return check_end("interleave");
}
#else
int main(void) {
  check_skip("interleave", "needs x86-64 without sanitizers");
  return check_end("interleave");
}
#endif
