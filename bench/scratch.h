/* SPDX-License-Identifier: MIT
 *
 * scratch.h - a benchmark's own directory below the one it is given: removed with all that is in it
 */
#ifndef SCRATCH_H
#define SCRATCH_H
#include "bench.h" /* first: it asks for what ftw.h declares */

#include <errno.h>
#include <ftw.h>
#include <sys/stat.h>

static inline int scratch_entry(const char *path, const struct stat *status, int flag, struct FTW *walk) {
  (void)status, (void)flag, (void)walk;
  return remove(path);
}
/* Removes a directory that scratch_make made. */
static inline void scratch_remove(const char *path) { nftw(path, scratch_entry, 16, FTW_DEPTH | FTW_PHYS); }

/* Makes DIR/name, empty, in `path`. Ends the program if that can't be. */
static inline void scratch_make(char *path, size_t bytes, const char *dir, const char *name) {
  if (snprintf(path, bytes, "%s/%s", dir, name) >= (int)bytes || (mkdir(dir, 0777) && errno != EEXIST)) {
    fprintf(stderr, "%s: can't be used\n", dir);
    exit(1);
  }
  scratch_remove(path);
  if (mkdir(path, 0700)) {
    perror(path);
    exit(1);
  }
}
#endif
