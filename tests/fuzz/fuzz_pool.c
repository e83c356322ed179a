/* SPDX-License-Identifier: MIT
 *
 * fuzz_pool.c - recovery of a dead tracer's pool that anything may have written to. At the start a live
 * tracer's pool is copied; each input is a list of patches to that copy, which lies in /dev/shm under this
 * process's own trace id, with a link in in/staging/. ojo_recover must not crash, hang, or touch anything
 * but its files; what it writes must be readable, and not much more than the pool holds.
 * Kinds of patches: see apply. Bit 7 of the kind: the value is added to what is there.
 */
#define _DEFAULT_SOURCE 1 /* stdio.h comes before ojo.h */
#include <stdio.h>

static FILE *fuzz_quiet; /* ojo_recover tells what it did */
#undef stderr
#define stderr fuzz_quiet

#define OJO_STATIC /* a copy of its own: the pool's structs are only known to the implementation */
#define OJO_IMPLEMENTATION
#define OJO_READER_IMPLEMENTATION
#include "fuzz.h"

#include <sys/wait.h>

#define WRITTEN_SLACK (24u << 20) /* THREAD and EVENTS_DROPPED of every entry of a full thread table */
#define SCHEMA_BYTES_MAX (64u << 20)
#define OWN_ID "0f0220f0220f0220" /* 16 digits; behind them the process id */
#define PAGE 4096u
#define BYTES_MAX (UINT64_C(1) << 40)

static struct {
  char path[PATH_MAX], link[PATH_MAX];
  unsigned char *image;
  size_t bytes;
  uint32_t pages[1024]; /* those that hold something */
  size_t page_count;
  uint64_t events; /* that a recovery finds */
} base;

/* ---- the pool that is patched */

static void *record_some(void *argument) {
  ojo_tracer *t = argument;
  for (uint32_t i = 0; i < 5; i++) ojo_packet_sent_sized(t, 7, i, 1200);
  return NULL;
}
static void read_image(void) {
  struct stat st;
  int fd = open(base.path, O_RDONLY | O_CLOEXEC);
  FUZZ_CHECK(fd >= 0 && fstat(fd, &st) == 0, "the pool %s can't be read", base.path);
  base.bytes = (size_t)st.st_size;
  base.image = malloc(base.bytes);
  FUZZ_CHECK(base.image && read(fd, base.image, base.bytes) == st.st_size, "the pool can't be copied");
  static const unsigned char zeros[PAGE];
  for (uint32_t i = 0; i < base.bytes / PAGE && base.page_count < 1024; i++)
    if (memcmp(base.image + i * PAGE, zeros, PAGE) != 0) base.pages[base.page_count++] = i;
  close(fd);
}
static void remove_pool(void) {
  unlink(base.path);
  free(base.image);
  base.image = NULL;
  fclose(fuzz_quiet);
}

void fuzz_pool_start(void) {
  static const ojo_type types[] = {{0x010000, "PING", "App", "a test", OJO_VALUE_TEXT}};
  ojo_desc desc = {.dir = fuzz_path("in"), .buffer_bytes = 8u << 16, .reserve_bytes = 1, .no_thread = true};
  ojo_tracer *t;
  pthread_t thread;
  char link[PATH_MAX] = "", id[33];
  fuzz_quiet = fopen("/dev/null", "w");
  desc.types = types;
  desc.type_count = 1;
  desc.checksums = true;
  FUZZ_CHECK(fuzz_quiet && ojo_open(&t, &desc) == OJO_OK && ojo_query_stats(t).crash_safe, "no pool in /dev/shm");
  DIR *staging = opendir(fuzz_path("in/staging"));
  for (struct dirent *entry; staging && (entry = readdir(staging));)
    if (strncmp(entry->d_name, "pool_", 5) == 0) snprintf(link, sizeof link, "in/staging/%s", entry->d_name);
  if (staging) closedir(staging);
  snprintf(base.link, sizeof base.link, "%s", fuzz_path(link));
  FILE *f = fopen(base.link, "r");
  FUZZ_CHECK(f && fgets(base.path, sizeof base.path, f), "no link to the pool");
  fclose(f);
  base.path[strcspn(base.path, "\n")] = 0;
  record_some(t);
  ojo_flush(t);
  FUZZ_CHECK(pthread_create(&thread, NULL, record_some, t) == 0, "no thread");
  pthread_join(thread, NULL);
  ojo_flow_open(t, &(ojo_flow_desc){.protocol = "quic", .label = "to be recovered"});
  ojo_record_ext(t, 7, 0x010000, 1, "text of an event", 17);
  record_some(t);
  ojo_record_ext(t, 7, 0x010000, 2, "more", OJO_EXTENSION_BYTES_MAX + 1); /* refused, before it is read: lost */
  read_image();
  /* from here on under a trace id that tells whose it is: fuzz.sh removes what a killed process left */
  snprintf(id, sizeof id, OWN_ID "%016x", (unsigned)getpid());
  memcpy(base.path + strlen(base.path) - 32, id, 32);
  memcpy(base.link + strlen(base.link) - 37, id, 32);
  base.events = 5 + 1 + 1 + 5 + 1; /* the last tells of the loss */
  ojo_close(t);
  fuzz_clear(fuzz_path("in/output"), true);
  fuzz_clear(fuzz_path("in/staging"), true);
  fuzz_at_end(remove_pool);
}

/* ---- patches */

typedef struct place {
  uint16_t at, width;
} place;
#define PLACE(type, member) {offsetof(type, member), sizeof(((type *)0)->member) < 8 ? sizeof(((type *)0)->member) : 8}
static const place pool_places[] = {PLACE(struct ojo__pool, magic),        PLACE(struct ojo__pool, version),
                                    PLACE(struct ojo__pool, chunk_count),  PLACE(struct ojo__pool, bytes),
                                    PLACE(struct ojo__pool, anchors_at),   PLACE(struct ojo__pool, threads_at),
                                    PLACE(struct ojo__pool, chunks_at),    PLACE(struct ojo__pool, data_at),
                                    PLACE(struct ojo__pool, schema_at),    PLACE(struct ojo__pool, anchor_count),
                                    PLACE(struct ojo__pool, open_batch),   PLACE(struct ojo__pool, batch_published),
                                    PLACE(struct ojo__pool, threads_fresh), PLACE(struct ojo__pool, thread_number),
                                    PLACE(struct ojo__pool, batches),      PLACE(struct ojo__pool, last_number),
                                    PLACE(struct ojo__pool, staging_name), PLACE(struct ojo__pool, output_name),
                                    PLACE(struct ojo__pool, gone.events),  PLACE(struct ojo__pool, gone.lost),
                                    PLACE(struct ojo__pool, gone.first_ts), PLACE(struct ojo__pool, gone.last_ts)};
static const place file_places[] = {PLACE(ojo_file_header, version),      PLACE(ojo_file_header, flags),
                                    PLACE(ojo_file_header, slot_bytes),   PLACE(ojo_file_header, schema_id),
                                    PLACE(ojo_file_header, header_bytes), PLACE(ojo_file_header, schema_bytes),
                                    PLACE(ojo_file_header, start_unix_ns), PLACE(ojo_file_header, start_monotonic_ns),
                                    PLACE(ojo_file_header, clock),        PLACE(ojo_file_header, pid),
                                    PLACE(ojo_file_header, magic),        PLACE(ojo_file_header, trace_id)};
static const place thread_places[] = {PLACE(struct ojo__thread, number),    PLACE(struct ojo__thread, tid),
                                      PLACE(struct ojo__thread, first_raw), PLACE(struct ojo__thread, state),
                                      PLACE(struct ojo__thread, chunks),    PLACE(struct ojo__thread, batch),
                                      PLACE(struct ojo__thread, name)};
static const place level_places[] = {PLACE(struct ojo__level, attempts),          PLACE(struct ojo__level, lost),
                                     PLACE(struct ojo__level, lost_first),        PLACE(struct ojo__level, lost_last),
                                     PLACE(struct ojo__level, reason),            PLACE(struct ojo__level, lost_taken),
                                     PLACE(struct ojo__level, ordinal_published), PLACE(struct ojo__level, ordinal_harvested),
                                     PLACE(struct ojo__level, lost_published),    PLACE(struct ojo__level, lost_harvested),
                                     PLACE(struct ojo__level, told_published),    PLACE(struct ojo__level, told_harvested),
                                     PLACE(struct ojo__level, batch)};
static const place chunk_places[] = {PLACE(struct ojo__chunk, committed), PLACE(struct ojo__chunk, lease),
                                     PLACE(struct ojo__chunk, ordinal),   PLACE(struct ojo__chunk, thread),
                                     PLACE(struct ojo__chunk, level),     PLACE(struct ojo__chunk, next),
                                     PLACE(struct ojo__chunk, published), PLACE(struct ojo__chunk, harvested),
                                     PLACE(struct ojo__chunk, batch)};

/* What stands around the pool. */
typedef struct world {
  uint64_t file_bytes;
  unsigned char *pool; /* mapped while it is patched */
  int fd;
  bool staging_file, hard_link, no_output, empty_link, foreign_link;
} world;

static void set_place(world *w, uint64_t in, const place *places, size_t count, const uint8_t *patch) {
  const place *to = &places[(patch[2] | (size_t)patch[3] << 8) % count];
  uint64_t at = in + to->at, value, had = 0;
  memcpy(&value, patch + 8, 8);
  if (at + to->width > base.bytes) return;
  memcpy(&had, w->pool + at, to->width);
  if (patch[0] & 0x80) value += had;
  memcpy(w->pool + at, &value, to->width);
}
#define SET(in, places) set_place(w, in, places, sizeof(places) / sizeof *(places), patch)

/* A pool laid out anew for other counts: with the file as large as it says, and holes where all was moved. */
static void lay_out(world *w, struct ojo__pool *pool, uint64_t header_bytes, uint64_t chunks) {
  pool->file.header_bytes = (uint32_t)header_bytes;
  pool->chunk_count = (uint32_t)chunks;
  pool->anchors_at = ojo__round_up(pool->schema_at + header_bytes - sizeof pool->file, 4096);
  pool->threads_at = ojo__round_up(pool->anchors_at + OJO__ANCHORS_MAX * sizeof(struct ojo__anchor), 4096);
  pool->chunks_at = ojo__round_up(pool->threads_at + OJO__THREADS_MAX * sizeof(struct ojo__thread), 4096);
  pool->data_at = ojo__round_up(pool->chunks_at + chunks * sizeof(struct ojo__chunk), OJO__CHUNK_BYTES);
  pool->bytes = pool->data_at + chunks * OJO__CHUNK_BYTES;
  if (pool->bytes <= BYTES_MAX) w->file_bytes = pool->bytes;
}
static void set_world(world *w, const uint8_t *patch) {
  static const char *const names[] = {"trace_1_1.bin", "../keep", "trace_../../keep", "/etc/passwd", "trace_1_"};
  struct ojo__pool *pool = (struct ojo__pool *)(void *)w->pool;
  uint64_t value;
  memcpy(&value, patch + 8, 8);
  switch (patch[2] % 10) {
    case 0: w->file_bytes = value % (base.bytes * 2); break;
    case 1: w->staging_file = true; break;
    case 2: w->hard_link = true; break;
    case 3: w->no_output = true; break;
    case 4: w->empty_link = true; break;
    case 5: w->foreign_link = true; break;
    case 6: snprintf(pool->staging_name, sizeof pool->staging_name, "%s", names[value % 5]); break;
    case 7: memset(pool->staging_name, 'x', sizeof pool->staging_name); break;
    case 8: lay_out(w, pool, pool->file.header_bytes, value % OJO__LIST_INDEX); break;
    default: lay_out(w, pool, value % (UINT64_C(1) << 32) / 8 * 8, pool->chunk_count); break;
  }
}
static void apply(world *w, const uint8_t *patch) {
  struct ojo__pool old;
  memcpy(&old, base.image, sizeof old);
  uint64_t thread = old.threads_at + patch[1] % 4u * sizeof(struct ojo__thread);
  uint64_t chunk = patch[1] % (uint64_t)old.chunk_count;
  uint32_t more;
  memcpy(&more, patch + 4, 4);
  static const place word[] = {{0, 8}};
  switch (patch[0] & 7) {
    case 0: SET(patch[1] & 1 ? offsetof(struct ojo__pool, file) : 0, pool_places); break;
    case 1: SET(offsetof(struct ojo__pool, file), file_places); break;
    case 2: SET(thread, thread_places); break;
    case 3:
      SET(more % 5 == 4 ? offsetof(struct ojo__pool, nobody)
                        : thread + offsetof(struct ojo__thread, level) + more % 5 * sizeof(struct ojo__level),
          level_places);
      break;
    case 4: SET(old.chunks_at + chunk * sizeof(struct ojo__chunk), chunk_places); break;
    case 5: /* a word of the data; near its start there is some */
      SET(old.data_at + chunk * OJO__CHUNK_BYTES + more % (patch[3] & 1 ? OJO__CHUNK_BYTES : 768u) / 8 * 8, word);
      break;
    case 6: SET(more % base.bytes, word); break;
    default: set_world(w, patch); break;
  }
}

/* ---- one recovery */

/* The pool's file as it was copied: only the pages that hold something. Mapped, until close_pool. */
static void open_pool(world *w) {
  unlink(base.path);
  w->fd = open(base.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  FUZZ_CHECK(w->fd >= 0 && ftruncate(w->fd, (off_t)base.bytes) == 0, "%s: %s", base.path, strerror(errno));
  w->pool = mmap(NULL, base.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
  FUZZ_CHECK(w->pool != MAP_FAILED, "%s: %s", base.path, strerror(errno));
  for (size_t i = 0; i < base.page_count; i++)
    memcpy(w->pool + base.pages[i] * PAGE, base.image + base.pages[i] * PAGE, PAGE);
}
static void close_pool(world *w) {
  munmap(w->pool, base.bytes);
  FUZZ_CHECK(ftruncate(w->fd, (off_t)w->file_bytes) == 0, "%s: %s", base.path, strerror(errno));
  close(w->fd);
}
static void lay_directory(const world *w) {
  const struct ojo__pool *pool = (const struct ojo__pool *)(const void *)w->pool;
  char name[128];
  fuzz_write(fuzz_path("keep"), "keep", 4);
  mkdir(fuzz_path("in/staging"), 0700);
  if (!w->no_output) mkdir(fuzz_path("in/output"), 0700);
  const char *to = w->foreign_link ? fuzz_path("keep") : base.path;
  fuzz_write(base.link, to, w->empty_link ? 0 : strlen(to));
  snprintf(name, sizeof name, "in/staging/%.63s", pool->staging_name);
  if (!w->staging_file || !pool->staging_name[0] || strchr(pool->staging_name, '/')) return;
  fuzz_write(fuzz_path(name), "unfinished", 10);
  if (w->hard_link && !w->no_output) (void)!link(fuzz_path(name), fuzz_path("in/output/trace_9_9.bin"));
}
/* The directory holds what it may hold. Returns the bytes in output/. */
static uint64_t check_directory(const char *directory, bool output) {
  DIR *listing = opendir(directory);
  uint64_t bytes = 0;
  struct stat st;
  for (struct dirent *entry; listing && (entry = readdir(listing));) {
    size_t n = strlen(entry->d_name);
    if (entry->d_name[0] == '.' || fstatat(dirfd(listing), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
    FUZZ_CHECK(!output || (strncmp(entry->d_name, "trace_", 6) == 0 && n > 10 && strcmp(entry->d_name + n - 4, ".bin") == 0),
               "output/ has %s", entry->d_name);
    bytes += (uint64_t)st.st_size;
  }
  if (listing) closedir(listing);
  return bytes;
}
static void check_around(void) {
  DIR *listing = opendir(fuzz_path("."));
  unsigned entries = 0;
  for (struct dirent *entry; listing && (entry = readdir(listing));) entries += entry->d_name[0] != '.';
  if (listing) closedir(listing);
  FUZZ_CHECK(entries == 2, "%u files beside the directory", entries);
  FUZZ_CHECK(check_directory(fuzz_path("in/staging"), false) < 1024, "staging/ keeps files");
  FILE *f = fopen(fuzz_path("keep"), "r");
  char text[8] = "";
  FUZZ_CHECK(f && fread(text, 1, sizeof text, f) == 4 && memcmp(text, "keep", 4) == 0, "a foreign file was changed");
  fclose(f);
}

void fuzz_recover(const uint8_t *choices, const uint8_t *data, size_t size) {
  world w = {.file_bytes = base.bytes};
  ojo_reader_desc desc = {.path = fuzz_path("in")};
  ojo_reader *r;
  fuzz_seen seen;
  size_t patches = size / FUZZ_PATCH;
  (void)choices;
  open_pool(&w);
  for (size_t i = 0; i < patches; i++) apply(&w, data + i * FUZZ_PATCH);
  lay_directory(&w);
  close_pool(&w);
  ojo_result result = ojo_recover(fuzz_path("in"));
  check_around();
  uint64_t bytes = check_directory(fuzz_path("in/output"), true);
  FUZZ_CHECK(bytes <= base.bytes + WRITTEN_SLACK + SCHEMA_BYTES_MAX, "%llu bytes written", (unsigned long long)bytes);
  FUZZ_CHECK(result != OJO_OK || w.foreign_link || w.empty_link || access(base.path, F_OK) != 0,
             "recovered, and the pool is still there");
  FUZZ_CHECK(ojo_reader_open(&r, &desc) == OJO_OK || r, "no reader");
  fuzz_read(r, bytes / OJO_SLOT_BYTES, &seen);
  ojo_reader_close(r);
  FUZZ_CHECK(patches || (result == OJO_OK && seen.count == base.events && seen.errors == 0),
             "%s: %llu events, not %llu", ojo_result_string(result), (unsigned long long)seen.count,
             (unsigned long long)base.events);
  result = ojo_recover(fuzz_path("in"));
  FUZZ_CHECK(result != OJO_OK || check_directory(fuzz_path("in/output"), true) >= bytes, "a second recovery takes away");
  unlink(base.path);
  unlink(fuzz_path("keep"));
  fuzz_clear(fuzz_path("in/output"), true);
  fuzz_clear(fuzz_path("in/staging"), true);
}
