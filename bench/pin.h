/* SPDX-License-Identifier: MIT
 *
 * pin.h - threads that are to run at the same time, each on a processor of its own
 *
 * Threads that a barrier wakes are often put on one processor, and take turns there for as long as a burst lasts: then
 * nothing is shared between processors, which is just what two threads are measured for.
 */
#ifndef PIN_H
#define PIN_H
#include "bench.h" /* first: it asks for what sched.h declares */

#include <sched.h>

/* Thread `index` of `threads` stays on its processor from now on, if there are enough of them. */
static inline void pin_thread(int index, int threads) {
  cpu_set_t allowed, one;
  if (sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) < threads || threads < 2) return;
  for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed) || index--) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one); /* of the calling thread. Refused: then they are not pinned */
    return;
  }
}

/* Waits actively, so that all of `threads` go on within a microsecond of each other; `round` counts from 1. After a
 * while it lets others run: there may be fewer processors than threads. */
static inline void pin_start(uint64_t *arrived, int threads, uint64_t round) {
  __atomic_fetch_add(arrived, 1, __ATOMIC_ACQ_REL);
  for (int spins = 0; __atomic_load_n(arrived, __ATOMIC_ACQUIRE) < (uint64_t)threads * round; spins++)
    if (spins > 1000000) sched_yield();
}
#endif
