/* SPDX-License-Identifier: MIT
 *
 * run_every_call.c - links with every_call.c: off (NULL, or OJO_DISABLE) and on. argv[1]: a directory.
 */
#define OJO_IMPLEMENTATION
#include "ojo.h"

#ifdef __cplusplus
#define NOTHING nullptr
#else
#define NOTHING NULL
#endif

ojo_tracer *every_call_open(const char *dir);
int every_call(ojo_tracer *t);

int main(int argc, char **argv) {
  int expected = every_call(NOTHING);
  ojo_tracer *t = every_call_open(argc > 1 ? argv[1] : NOTHING);
  int n;
  ojo_stats stats;
  if (expected <= 0) return 1;
  n = every_call(t);
  stats = ojo_query_stats(t);
  if (ojo_close(t) != OJO_OK || n != expected) return 2;
#ifdef OJO_DISABLE
  return t != NOTHING || stats.recorded != 0;
#else
  return t == NOTHING || stats.recorded != (uint64_t)n || stats.dropped != 3 ? 3 : 0;
#endif
}
