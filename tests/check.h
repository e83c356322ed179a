/* SPDX-License-Identifier: MIT
 *
 * check.h - what the small test programs share: counting, scratch directories, running a command, and a
 * plain parser of trace files that shares no code with ojo_reader.h. Include it after ojo.h.
 */
#ifndef OJO_TESTS_CHECK_H
#define OJO_TESTS_CHECK_H

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned check__passed, check__failed, check__skipped;

/* One test: its outcome and its name. */
__attribute__((format(printf, 2, 3))) static bool check(bool ok, const char *format, ...) {
  va_list arguments;
  if (ok) {
    __atomic_fetch_add(&check__passed, 1, __ATOMIC_RELAXED); /* some tests check in threads */
    return true;
  }
  __atomic_fetch_add(&check__failed, 1, __ATOMIC_RELAXED);
  fputs("FAILED: ", stdout);
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  putchar('\n');
  return false;
}

/* What this machine or build can't do. Nothing that could be installed would help. */
static inline void check_skip(const char *name, const char *reason) {
  check__skipped++;
  printf("skip (not installable): %s: %s\n", name, reason);
}

/* Run by an emulator of another processor (qemu-user), which leaves some of the kernel out. */
static inline bool check_emulated(void) { return getenv("OJO_EMULATED") != NULL; }

/* The last line of a part and its exit code. */
static int check_end(const char *part) {
  if (check__skipped)
    printf("%s: %u passed, %u failed, %u skipped\n", part, check__passed, check__failed, check__skipped);
  else
    printf("%s: %u passed, %u failed\n", part, check__passed, check__failed);
  return check__failed != 0;
}

/* A fresh directory, as build/tests/tmp/unit.XXXXXX. */
static char *check_directory(const char *part, char *path, size_t bytes) {
  const char *build = getenv("BUILD");
  snprintf(path, bytes, "%s", build ? build : "build");
  mkdir(path, 0777);
  snprintf(path, bytes, "%s/tests", build ? build : "build");
  mkdir(path, 0777);
  snprintf(path, bytes, "%s/tests/tmp", build ? build : "build");
  mkdir(path, 0777);
  snprintf(path, bytes, "%s/tests/tmp/%s.XXXXXX", build ? build : "build", part);
  if (!mkdtemp(path)) {
    perror(path);
    exit(1);
  }
  return path;
}

/* Removes a directory and what is in it. */
static inline void check_remove(const char *path) {
  DIR *directory = opendir(path);
  struct dirent *entry;
  char inner[8192];
  if (directory) {
    while ((entry = readdir(directory)) != NULL) {
      if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
      if (snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) >= (int)sizeof inner) continue;
      check_remove(inner);
    }
    closedir(directory);
  }
  remove(path);
}

/* How many entries DIR/SUB has, hidden ones left out. */
static inline unsigned check_count(const char *dir, const char *sub) {
  char path[4096];
  unsigned count = 0;
  struct dirent *entry;
  snprintf(path, sizeof path, "%s/%s", dir, sub);
  DIR *directory = opendir(path);
  while (directory && (entry = readdir(directory)) != NULL) count += entry->d_name[0] != '.';
  if (directory) closedir(directory);
  return count;
}

/* A whole file, with a NUL after it. NULL if it can't be read. */
static char *check_load(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  size_t size = 0, room = 1 << 16, got;
  char *data = NULL;
  if (!file) return NULL;
  do {
    room *= 2;
    data = (char *)realloc(data, room + 1);
    if (!data) abort();
    got = fread(data + size, 1, room - size, file);
    size += got;
  } while (size == room);
  fclose(file);
  data[size] = 0;
  if (bytes) *bytes = size;
  return data;
}

/* The only file of DIR/output/; NULL if there is none or more than one. */
static inline char *check_only_file(const char *dir, char *path, size_t bytes) {
  char output[4096];
  DIR *directory;
  struct dirent *entry;
  unsigned count = 0;
  snprintf(output, sizeof output, "%s/output", dir);
  directory = opendir(output);
  if (!directory) return NULL;
  while ((entry = readdir(directory)) != NULL) {
    if (entry->d_name[0] == '.') continue;
    if (snprintf(path, bytes, "%s/%s", output, entry->d_name) >= (int)bytes) count = 2;
    count++;
  }
  closedir(directory);
  return count == 1 ? path : NULL;
}

/* Standard output of a shell command, and its exit code. The caller frees it. */
__attribute__((format(printf, 2, 3))) static inline char *check_run(int *code, const char *format, ...) {
  char command[8192];
  va_list arguments;
  size_t size = 0, room = 4096, got;
  char *text = (char *)malloc(room + 1);
  FILE *pipe;
  va_start(arguments, format);
  vsnprintf(command, sizeof command, format, arguments);
  va_end(arguments);
  fflush(stdout);
  pipe = popen(command, "r");
  if (!text || !pipe) abort();
  while ((got = fread(text + size, 1, room - size, pipe)) > 0) {
    size += got;
    if (size == room) {
      room *= 2;
      text = (char *)realloc(text, room + 1);
      if (!text) abort();
    }
  }
  text[size] = 0;
  int status = pclose(pipe);
  if (code) *code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return text;
}

/* An event as the file has it. */
typedef struct check_event {
  uint64_t ts, payload, size;
  uint32_t type, flow, thread;
  bool has_size;
  unsigned extension_bytes;
  const unsigned char *extension; /* into the file's bytes, which stay loaded */
} check_event;

/* Appends the events of one version 2 file, RUN and THREAD left out. False if it is not sound. */
static inline bool check_parse(const char *data, size_t bytes, check_event **events, size_t *count) {
  ojo_file_header header;
  ojo_event slot;
  uint32_t thread = 0;
  size_t at;
  if (bytes < sizeof header) return false;
  memcpy(&header, data, sizeof header);
  if (memcmp(header.magic, OJO_FILE_MAGIC, 4) != 0 || header.version != 2 || header.slot_bytes != 24)
    return false;
  if (header.header_bytes > bytes || (bytes - header.header_bytes) / 24 != header.slot_count ||
      (bytes - header.header_bytes) % 24 != 0)
    return false;
  for (at = header.header_bytes; at < bytes;) {
    memcpy(&slot, data + at, sizeof slot);
    unsigned n = slot.type >> OJO_EXTENSION_SHIFT;
    uint32_t type = slot.type & OJO_TYPE_MASK;
    if ((bytes - at) / 24 < 1 + n || (n && (slot.type & OJO_SIZED))) return false;
    if (type == OJO_RUN) thread = slot.flow;
    if (type != OJO_RUN && type != OJO_THREAD) {
      if (*count == 0 || (*count >= 64 && (*count & (*count - 1)) == 0)) /* room: 64, then powers of two */
        *events = (check_event *)realloc(*events, (*count ? *count * 2 : 64) * sizeof **events);
      if (!*events) abort();
      check_event *e = &(*events)[(*count)++];
      memset(e, 0, sizeof *e);
      e->ts = slot.ts;
      e->type = type;
      e->flow = slot.flow;
      e->thread = thread;
      e->payload = slot.payload;
      e->extension = (const unsigned char *)data + at + 24;
      e->extension_bytes = n * 24;
      if (slot.type & OJO_SIZED) {
        e->has_size = true;
        e->size = slot.payload >> 44;
        e->payload = slot.payload & ((UINT64_C(1) << 44) - 1);
      }
    }
    at += 24 * (size_t)(1 + n);
  }
  return at == bytes;
}

static char **check__loaded;
static size_t check__loads;
static inline int check__by_name(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The events of all files of DIR/output/, by file name. Free *events; the files' bytes stay loaded, and
 * reachable, until the program ends. */
static inline size_t check_events(const char *dir, check_event **events) {
  char output[4096], path[4352], *names[1024];
  size_t files = 0, count = 0, bytes, i;
  struct dirent *entry;
  DIR *directory;
  snprintf(output, sizeof output, "%s/output", dir);
  directory = opendir(output);
  *events = NULL;
  if (!directory) return 0;
  while ((entry = readdir(directory)) != NULL && files < 1024)
    if (entry->d_name[0] != '.') names[files++] = strdup(entry->d_name);
  closedir(directory);
  qsort(names, files, sizeof *names, check__by_name);
  for (i = 0; i < files; i++) {
    snprintf(path, sizeof path, "%s/%s", output, names[i]);
    char *data = check_load(path, &bytes);
    check__loaded = (char **)realloc(check__loaded, (check__loads + 1) * sizeof *check__loaded);
    if (!check__loaded) abort();
    check__loaded[check__loads++] = data;
    check(data && check_parse(data, bytes, events, &count), "%s is sound", path);
    free(names[i]);
  }
  return count;
}

/* A small deterministic generator (splitmix64). */
static inline uint64_t check_random(uint64_t *state) {
  uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
  z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
  return z ^ z >> 31;
}
#endif
