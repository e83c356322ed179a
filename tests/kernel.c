/* SPDX-License-Identifier: MIT
 *
 * kernel.c - ojo_bpf.h against what programs did and what the kernel counted. Needs bpf() and network namespaces: as
 * root. Each part runs in a process and a network namespace of its own, with traffic on its loopback interface only.
 *
 *   OJO_KERNEL_PARTS=tcp,udp   only these parts
 *   OJO_KERNEL_SEED=7          the random sizes of a run that failed
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* unshare, accept4, memfd_create */
#endif
#define OJO_IMPLEMENTATION
#include "ojo.h"
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"
#define OJO_BPF_IMPLEMENTATION
#include "ojo_bpf.h"
#include "check.h"
#include "kernel_net.h"
#include "kernel_tcp.h"
#include "kernel_udp.h"
#include "kernel_trace.h"
#include "kernel_counts.h"
#include "kernel_loss.h"
#include "kernel_order.h"
#include "kernel_select.h"
#include "kernel_api.h"

static const struct part {
  const char *name;
  void (*run)(void);
} parts[] = {
    {"traffic", part_traffic},
    {"tcp", part_tcp},
    {"udp_close", part_udp_close},
    {"udp", part_udp},
    {"loss_queue", part_loss_queue},
    {"loss_3", part_loss_3},
    {"loss_10", part_loss_10},
    {"metrics", part_metrics},
    {"interleave", part_interleave},
    {"bind", part_bind},
    {"scheduler", part_scheduler},
    {"filters", part_filters},
    {"existing", part_existing},
    {"odd", part_odd},
    {"probes", part_probes},
    {"lost", part_lost},
    {"capabilities", part_capabilities},
    {"many", part_many},
    {"api", part_api},
    {"leaks", part_leaks},
};

static void enter_and_run(void *argument) {
  const struct part *part = (const struct part *)argument;
  if (!namespace_enter()) give_up("%s: a network namespace", part->name);
  part->run();
}
static void run_part(const struct part *part) {
  uint64_t start = now_ns();
  unsigned passed = check__passed, failed = check__failed;
  in_child(part->name, 3, enter_and_run, (void *)(uintptr_t)part);
  failed = check__failed - failed;
  printf("%s: %u checks, %u failed, %.1f s\n", part->name, check__passed - passed + failed, failed,
         (double)(now_ns() - start) / 1e9);
}

/* Whether this process may do what the tests need, tried out in a child. */
static const char *refused(void) {
  int status = 0;
  pid_t pid = fork_named("kernel");
  if (pid == 0) {
    ojo_bpf *b;
    if (!namespace_enter()) _exit(1);
    ojo_result result =
        ojo_bpf_open(&b, &(ojo_bpf_desc){.object_path = kernel_object, .list = true, .probes = OJO_BPF_TCP_STATE});
    _exit(result == OJO_ERR_PERMISSION ? 2 : 0); /* anything else is for the parts to find */
  }
  waitpid(pid, &status, 0);
  return !WIFEXITED(status) || !WEXITSTATUS(status) ? NULL
         : WEXITSTATUS(status) == 1                 ? "network namespaces are refused"
                                                    : "bpf() is refused";
}
static bool chosen(const char *name) {
  const char *list = getenv("OJO_KERNEL_PARTS");
  if (!list || !*list) return true;
  size_t length = strlen(name);
  for (const char *at = list; (at = strstr(at, name)) != NULL; at += length)
    if ((at == list || at[-1] == ',') && (at[length] == ',' || !at[length])) return true;
  return false;
}

int main(void) {
  static char object[512];
  const char *build = getenv("BUILD");
  snprintf(object, sizeof object, "%s/ojo_bpf.o", build ? build : "build");
  kernel_object = object;
  const char *reason = refused();
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    if (!chosen(parts[i].name)) continue;
    if (reason) check_skip(parts[i].name, reason);
    else run_part(&parts[i]);
  }
  return check_end("kernel");
}
