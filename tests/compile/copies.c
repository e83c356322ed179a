/* SPDX-License-Identifier: MIT
 *
 * copies.c - a program with three copies of the tracer, a and b static and c not. Each records into its
 * own tracer and into the others', in turns, from two threads. argv[1..3]: directories.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

struct ojo_tracer;
#define COPY(x)                                              \
  struct ojo_tracer *x##_open(const char *dir);              \
  uint32_t x##_record(struct ojo_tracer *t, unsigned count); \
  uint64_t x##_close(struct ojo_tracer *t)
COPY(a);
COPY(b);
COPY(c);

enum { ROUNDS = 200, COUNT = 50 };
static struct ojo_tracer *tracers[3];
static uint32_t flows[2][3][ROUNDS * 3]; /* per thread and tracer: each copy's ids in each round */

static void *record(void *which) {
  int me = *(int *)which;
  for (int round = 0; round < ROUNDS; round++)
    for (int i = 0; i < 3; i++) {
      flows[me][i][round * 3] = a_record(tracers[i], COUNT);
      flows[me][i][round * 3 + 1] = b_record(tracers[i], COUNT);
      flows[me][i][round * 3 + 2] = c_record(tracers[i], COUNT);
    }
  return NULL;
}

int main(int argc, char **argv) {
  pthread_t thread;
  int me = 0, other = 1;
  if (argc < 4) return 2;
  tracers[0] = a_open(argv[1]);
  tracers[1] = b_open(argv[2]);
  tracers[2] = c_open(argv[3]);
  if (!tracers[0] || !tracers[1] || !tracers[2]) return 3;
  if (pthread_create(&thread, NULL, record, &other)) return 4;
  record(&me);
  pthread_join(thread, NULL);
  for (int i = 0; i < 3; i++) /* flow ids are unique in a trace, whichever copy handed them out */
    for (int k = 0; k < 2 * ROUNDS * 3; k++)
      for (int m = 0; m < k; m++)
        if (flows[k / (ROUNDS * 3)][i][k % (ROUNDS * 3)] == flows[m / (ROUNDS * 3)][i][m % (ROUNDS * 3)]) {
          fprintf(stderr, "tracer %d handed out flow %u twice\n", i, flows[k / (ROUNDS * 3)][i][k % (ROUNDS * 3)]);
          return 5;
        }
  uint64_t want = 2 * ROUNDS * 3 * (COUNT + 3); /* COUNT packets, FLOW, two for the stream */
  uint64_t got[3] = {a_close(tracers[0]), b_close(tracers[1]), c_close(tracers[2])};
  for (int i = 0; i < 3; i++)
    if (got[i] != want) {
      fprintf(stderr, "tracer %d: %llu events, not %llu\n", i, (unsigned long long)got[i],
              (unsigned long long)want);
      return 6;
    }
  return 0;
}
