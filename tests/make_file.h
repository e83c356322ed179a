/* SPDX-License-Identifier: MIT
 *
 * make_file.h - trace files built byte by byte, in memory, from the description of the format alone: it
 * shares no code and no struct with ojo.h, so that a test does not believe a mistake that both sides make.
 *
 *   made m = made_new();                              version 2; all header fields have defaults in it
 *   made_run(&m, thread);                             begins a run
 *   made_event(&m, ts, type, flow, payload);          and so on
 *   made_finish(&m);                                  ends the run, fills the header in
 *   made_write(&m, path); made_free(&m);
 *
 * A run's RUN slot is filled in when the run ends (by the next made_run, or made_finish): count, times,
 * UNSORTED if times go back. What a test wants to be wrong it overwrites in m.bytes afterwards.
 */
#ifndef OJO_TESTS_MAKE_FILE_H
#define OJO_TESTS_MAKE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MADE_SIZED 0x800000u
#define MADE_DROPPED 0xFF01u
#define MADE_RUN 0xFF02u
#define MADE_THREAD 0xFF03u
#define MADE_FLOW 0xFF04u

typedef struct made {
  unsigned char *bytes;
  size_t size, room;
  /* version 2's header, before made_finish */
  uint64_t start_unix_ns, start_monotonic_ns, batch, host_id;
  uint8_t trace_id[16], boot_id[16];
  uint32_t pid, clock, flags, anchor_error_ns;
  const char *command;
  bool checksums;
  /* the run under way */
  size_t run_at;
  uint64_t run_ordinal; /* set before events, or counted on */
  uint64_t run_lost;    /* lost_before; likewise, but 0 in a new run */
  uint64_t first_ts, last_ts, run_first, run_last, before;
  uint32_t run_thread, run_events, run_flags, run_level;
  size_t slots_at;
  bool in_run;
} made;

/* Bit by bit: slow, and nothing to get wrong. */
static inline uint32_t made_crc32c(const unsigned char *p, size_t n) {
  uint32_t crc = ~0u;
  for (size_t i = 0; i < n; i++) {
    crc ^= p[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ ((crc & 1u) ? 0x82F63B78u : 0u);
  }
  return ~crc;
}
static inline uint64_t made_fnv(const void *data, size_t n) {
  const unsigned char *p = (const unsigned char *)data;
  uint64_t hash = 14695981039346656037u;
  for (size_t i = 0; i < n; i++) hash = (hash ^ p[i]) * 1099511628211u;
  return hash;
}
static inline void made_put(made *m, size_t at, uint64_t value, int bytes) { /* little-endian */
  for (int i = 0; i < bytes; i++) m->bytes[at + (size_t)i] = (unsigned char)(value >> 8 * i);
}
static inline uint64_t made_get(const made *m, size_t at, int bytes) {
  uint64_t value = 0;
  for (int i = bytes; i--;) value = value << 8 | m->bytes[at + (size_t)i];
  return value;
}
static inline size_t made_more(made *m, size_t bytes) { /* zeros; returns their offset */
  if (m->size + bytes > m->room) {
    m->room = (m->size + bytes) * 2;
    m->bytes = (unsigned char *)realloc(m->bytes, m->room);
    if (!m->bytes) abort();
  }
  memset(m->bytes + m->size, 0, bytes);
  m->size += bytes;
  return m->size - bytes;
}

/* ---- version 2 */

static inline made made_with_schema(const char *schema) {
  made m;
  size_t length = schema ? strlen(schema) : 0, rounded = (length + 7) / 8 * 8;
  memset(&m, 0, sizeof m);
  m.start_unix_ns = 1000000000000u;
  m.start_monotonic_ns = 5000000u;
  m.trace_id[0] = 0xA1;
  m.boot_id[0] = 0xB0;
  m.pid = 1234;
  m.clock = 3;
  m.flags = 1; /* COMPLETE */
  m.command = "made";
  m.first_ts = UINT64_MAX;
  made_more(&m, 144 + rounded);
  m.slots_at = m.size;
  if (length) memcpy(m.bytes + 144, schema, length);
  made_put(&m, 16, schema ? made_fnv(schema, length) : 0, 8);
  made_put(&m, 28, length, 4);
  return m;
}
static inline made made_new(void) { return made_with_schema(NULL); }

static inline void made_end_run(made *m) {
  if (!m->in_run) return;
  m->in_run = false;
  size_t slots = (m->size - m->run_at) / 24 - 3;
  if (m->run_events == 0 && m->run_first == UINT64_MAX) m->run_first = m->run_last = 0;
  made_put(m, m->run_at, m->run_first, 8);
  made_put(m, m->run_at + 8, MADE_RUN | 2u << 24, 4);
  made_put(m, m->run_at + 12, m->run_thread, 4);
  made_put(m, m->run_at + 16, slots, 8);
  made_put(m, m->run_at + 24, m->run_ordinal, 8);
  made_put(m, m->run_at + 32, m->run_last, 8);
  made_put(m, m->run_at + 40, 10000 + m->run_thread, 4);
  made_put(m, m->run_at + 44, m->checksums ? made_crc32c(m->bytes + m->run_at + 72, slots * 24) : 0, 4);
  made_put(m, m->run_at + 48, m->run_events, 4);
  made_put(m, m->run_at + 52, m->run_flags, 2);
  made_put(m, m->run_at + 54, m->run_level, 2);
  made_put(m, m->run_at + 56, m->run_lost, 8);
  m->run_ordinal += m->run_events;
}
static inline void made_run(made *m, uint32_t thread) {
  made_end_run(m);
  m->in_run = true;
  m->run_at = made_more(m, 72);
  m->run_thread = thread;
  m->run_events = m->run_flags = m->run_level = 0;
  m->run_first = UINT64_MAX;
  m->run_last = m->before = m->run_lost = 0;
}
static inline size_t made_slot(made *m, uint64_t ts, uint32_t type, uint32_t flow, uint64_t payload) {
  size_t at = made_more(m, 24);
  made_put(m, at, ts, 8);
  made_put(m, at + 8, type, 4);
  made_put(m, at + 12, flow, 4);
  made_put(m, at + 16, payload, 8);
  return at;
}
static inline void made_time(made *m, uint64_t ts) {
  if (ts < m->before) m->run_flags |= 1; /* UNSORTED */
  m->before = ts;
  m->run_events++;
  if (ts < m->run_first) m->run_first = ts;
  if (ts > m->run_last) m->run_last = ts;
  if (ts < m->first_ts) m->first_ts = ts;
  if (ts > m->last_ts) m->last_ts = ts;
}
static inline void made_event(made *m, uint64_t ts, uint32_t type, uint32_t flow, uint64_t payload) {
  made_slot(m, ts, type, flow, payload);
  made_time(m, ts);
}
static inline void made_sized(made *m, uint64_t ts, uint32_t type, uint32_t flow, uint64_t value,
                              uint64_t size) {
  made_event(m, ts, type | MADE_SIZED, flow, value | size << 44);
}
/* With extension slots for `length` bytes. */
static inline void made_extended(made *m, uint64_t ts, uint32_t type, uint32_t flow, uint64_t payload,
                                 const void *bytes, size_t length) {
  size_t slots = (length + 23) / 24;
  made_event(m, ts, type | (uint32_t)slots << 24, flow, payload);
  size_t at = made_more(m, slots * 24);
  if (length) memcpy(m->bytes + at, bytes, length);
}
static inline void made_number(made *m, uint64_t ts, uint32_t type, uint32_t flow, uint64_t payload,
                               uint64_t number) {
  unsigned char bytes[8];
  for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(number >> 8 * i);
  made_extended(m, ts, type, flow, payload, bytes, 8);
}
static inline void made_thread(made *m, uint64_t ts, uint32_t tid, const char *name) {
  made_slot(m, ts, MADE_THREAD | 1u << 24, m->run_thread, tid | UINT64_C(77) << 32);
  size_t at = made_more(m, 24);
  memcpy(m->bytes + at, name, strlen(name) < 16 ? strlen(name) : 16);
}
static inline void made_dropped(made *m, uint64_t first, uint64_t last, uint64_t count, uint32_t reason) {
  unsigned char bytes[24] = {0};
  for (int i = 0; i < 8; i++) {
    bytes[i] = (unsigned char)(first >> 8 * i);
    bytes[8 + i] = (unsigned char)(last >> 8 * i);
  }
  bytes[16] = (unsigned char)reason;
  made_extended(m, first, MADE_DROPPED, m->run_thread, count, bytes, sizeof bytes);
}
/* FLOW: id, local address and remote address stay empty. */
static inline void made_flow(made *m, uint64_t ts, uint32_t flow, uint64_t key, uint32_t parent,
                             uint8_t kind, uint8_t role, const char *protocol, const char *label) {
  unsigned char bytes[24 + 510] = {0};
  size_t p = strlen(protocol), l = strlen(label);
  for (int i = 0; i < 4; i++) bytes[i] = (unsigned char)(parent >> 8 * i);
  bytes[4] = kind;
  bytes[5] = role;
  bytes[12] = (unsigned char)p;
  bytes[13] = (unsigned char)l;
  memcpy(bytes + 24, protocol, p);
  memcpy(bytes + 24 + p, label, l);
  made_extended(m, ts, MADE_FLOW, flow, key, bytes, 24 + p + l);
}
/* The header from m's fields. Once more after a change to them; a test that changes header bytes itself
 * calls made_seal afterwards. */
static inline void made_seal(made *m) {
  made_put(m, 140, 0, 4);
  made_put(m, 140, made_crc32c(m->bytes, 144), 4);
}
static inline void made_finish(made *m) {
  made_end_run(m);
  memcpy(m->bytes, "ojo", 4);
  m->bytes[4] = 2;
  m->bytes[5] = (unsigned char)(m->flags | (m->checksums ? 8u : 0u));
  made_put(m, 6, 24, 2);
  made_put(m, 8, m->start_unix_ns, 8);
  made_put(m, 24, m->slots_at, 4);
  made_put(m, 32, m->start_monotonic_ns, 8);
  memcpy(m->bytes + 40, m->trace_id, 16);
  made_put(m, 56, m->pid, 4);
  made_put(m, 60, m->clock, 4);
  made_put(m, 64, m->batch, 8);
  made_put(m, 72, (m->size - m->slots_at) / 24, 8);
  made_put(m, 80, m->first_ts == UINT64_MAX ? 0 : m->first_ts, 8);
  made_put(m, 88, m->last_ts, 8);
  memcpy(m->bytes + 96, m->boot_id, 16);
  memset(m->bytes + 112, 0, 16);
  memcpy(m->bytes + 112, m->command, strlen(m->command) < 16 ? strlen(m->command) : 16);
  made_put(m, 128, m->host_id, 8);
  made_put(m, 136, m->anchor_error_ns, 4);
  made_seal(m);
}
static inline bool made_write(const made *m, const char *path) {
  FILE *file = fopen(path, "wb");
  if (!file) return false;
  bool ok = m->size == 0 || fwrite(m->bytes, m->size, 1, file) == 1;
  return fclose(file) == 0 && ok;
}
static inline void made_free(made *m) {
  free(m->bytes);
  memset(m, 0, sizeof *m);
}

/* ---- version 1 */

static inline made made_version1(uint64_t start_unix_ns, uint64_t schema_id) {
  made m;
  memset(&m, 0, sizeof m);
  made_more(&m, 24);
  memcpy(m.bytes, "ojo", 4);
  m.bytes[4] = 1;
  made_put(&m, 8, start_unix_ns, 8);
  made_put(&m, 16, schema_id, 8);
  return m;
}
static inline void made_record1(made *m, uint64_t delta_ns, uint64_t flow, uint64_t type,
                                uint64_t primary, uint64_t secondary) {
  size_t at = made_more(m, 40);
  made_put(m, at, delta_ns, 8);
  made_put(m, at + 8, flow, 8);
  made_put(m, at + 16, type, 8);
  made_put(m, at + 24, primary, 8);
  made_put(m, at + 32, secondary, 8);
}

#endif /* OJO_TESTS_MAKE_FILE_H */
