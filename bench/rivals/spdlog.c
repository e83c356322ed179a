/* SPDX-License-Identifier: MIT
 *
 * spdlog.c - spdlog's asynchronous file logger beside ojo
 *
 *   spdlog DIR    case "rivals": 1, 2 and 4 threads
 */
#include "harness.h"
#include "spdlog.h"

RIVAL_LOOP(loop_spdlog, spdlog_record(time, 1, OJO_PACKET_SENT, i)) /* it stamps the message, whatever we give it */

static void compare(int threads) {
  uint64_t events = bench_scale(60000, 60000, 10000) / (uint64_t)threads;
  struct rival_case cases[] = {
    rival_case_ojo(false, threads), rival_case_ojo(true, threads),
    rival_case_of("spdlog async", loop_spdlog, spdlog_rest, spdlog_lost, events, "ojo_record")};
  rival_measure(cases, 3, threads, (int)bench_scale(11, 5, 1));
  rival_rows("rivals", cases, 3, threads, false, "spdlog async");
}

int main(int count, char **argument) {
  static const int threads[] = {1, 2, 4};
  char dir[4096];
  if (count != 2) {
    fprintf(stderr, "usage: spdlog DIR\n");
    return 2;
  }
  scratch_make(dir, sizeof dir, argument[1], "spdlog");
  if (spdlog_open(dir)) {
    fprintf(stderr, "spdlog: left out: the library was missing when this was compiled\n");
    scratch_remove(dir);
    return 0;
  }
  rival_ojo_open(dir);
  for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) compare(threads[i]);
  ojo_close(rival_ojo);
  spdlog_close();
  scratch_remove(dir);
  return 0;
}
