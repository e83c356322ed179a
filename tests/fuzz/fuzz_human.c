/* SPDX-License-Identifier: MIT
 * fuzz_human.c - export_human.c, and a way to empty its memory of flows: an input must not inherit it. */
#include "../../tools/export_human.c"

void fuzz_forget_flows(void);
void fuzz_forget_flows(void) { memset(flow_names, 0, sizeof flow_names); }
