/* SPDX-License-Identifier: MIT
 *
 * hot_disabled.c - the calls of hot.c as they are when tracing is compiled out
 *
 * A translation unit of its own: OJO_DISABLE is for a whole file. The barrier keeps the loop, of which the compiler
 * would leave nothing otherwise.
 */
#define OJO_DISABLE
#include "../ojo.h"

void hot_disabled(uint64_t calls);
void hot_disabled(uint64_t calls) {
  ojo_tracer *t = NULL;
  for (uint64_t i = 0; i < calls; i++) {
    ojo_record(t, 1, OJO_PACKET_SENT, i);
    __asm__ volatile("" : "+r"(t) : : "memory");
  }
}
