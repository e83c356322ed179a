/* SPDX-License-Identifier: MIT
 *
 * lttng_events.c - what LTTng-UST makes of lttng_events.h: a file of its own, as its macros don't pass our warnings
 */
#ifdef __has_include
#if __has_include(<lttng/tracepoint.h>)
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "lttng_events.h"
#endif
#endif
