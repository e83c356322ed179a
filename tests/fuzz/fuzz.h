/* SPDX-License-Identifier: MIT
 *
 * fuzz.h - what the targets share. A target runs one input, and aborts (fuzz_fail) when something that
 * ojo promises of any input does not hold; crashes, leaks and undefined behaviour are the sanitizers'.
 */
#ifndef OJO_TESTS_FUZZ_H
#define OJO_TESTS_FUZZ_H

#include "../../ojo_reader.h"
#include "mutate.h"

#include <stdio.h>

typedef struct fuzz_target {
  const char *name;
  fuzz_layout layout;
  void (*start)(void); /* once; or NULL */
  void (*run)(const uint8_t *choices, const uint8_t *data, size_t size);
} fuzz_target;

void fuzz_memory(const uint8_t *choices, const uint8_t *data, size_t size);
void fuzz_file(const uint8_t *choices, const uint8_t *data, size_t size);
void fuzz_directory(const uint8_t *choices, const uint8_t *data, size_t size);
void fuzz_cat(const uint8_t *choices, const uint8_t *data, size_t size);
void fuzz_pool_start(void);
void fuzz_recover(const uint8_t *choices, const uint8_t *data, size_t size);

void fuzz_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
#define FUZZ_CHECK(x, ...) \
  do { \
    if (!(x)) fuzz_fail(__VA_ARGS__); \
  } while (0)

/* A path in this process's own directory, which is removed at exit. Of eight in turn. */
const char *fuzz_path(const char *name);
void fuzz_write(const char *path, const void *bytes, size_t length);
void fuzz_clear(const char *directory, bool remove_it); /* the files in it; nothing if it is not there */
/* Called when the process dies of a finding, and at exit. */
void fuzz_at_end(void (*fn)(void));

/* ---- of fuzz_reader.c */

#define FUZZ_SAMPLES 16u

typedef struct fuzz_seen { /* of one pass over all events */
  uint64_t count, errors, first_ns, last_ns;
  uint64_t sum; /* of the events' hashes, so that the order does not matter; without their times */
  bool late;    /* times went back */
  ojo_reader_event sample[FUZZ_SAMPLES]; /* without extension */
  size_t samples;
} fuzz_seen;

/* Reads all, and checks each event. At most `most` events may come. */
void fuzz_read(ojo_reader *r, uint64_t most, fuzz_seen *seen);
/* Writes the parts of an input into the directory that it returns. *first: the first one's path. */
const char *fuzz_spread(const uint8_t *data, size_t size, const char **first);
void fuzz_gather(void); /* removes them */

#endif
