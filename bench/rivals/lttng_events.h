/* SPDX-License-Identifier: MIT
 *
 * lttng_events.h - the tracepoint of lttng.h, in the form that LTTng-UST wants: it includes this file several times
 */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER ojo_bench
#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "lttng_events.h"
#if !defined(LTTNG_EVENTS_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define LTTNG_EVENTS_H
#include <lttng/tracepoint.h>
#include <stdint.h>

/* An ojo_event but for the time: LTTng stamps each event with its own clock. */
LTTNG_UST_TRACEPOINT_EVENT(ojo_bench, event,
                           LTTNG_UST_TP_ARGS(uint32_t, type_number, uint32_t, flow_number, uint64_t, payload_value),
                           LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(uint32_t, type, type_number)
                                               lttng_ust_field_integer(uint32_t, flow, flow_number)
                                               lttng_ust_field_integer(uint64_t, payload, payload_value)))
#endif
#include <lttng/tracepoint-event.h>
