/* SPDX-License-Identifier: MIT
 *
 * 2_custom_types.c - event types of your own, beside the standard ones
 *
 *     cc -std=gnu11 -O2 -I. examples/2_custom_types.c -o 2_custom_types -pthread
 *     OJO_DIR=traces ./2_custom_types && ojo-cat traces
 *
 * A type is a number from OJO_APPLICATION_TYPE_FIRST on and a row that describes it. The rows travel in the
 * header of every trace file: a reader knows the names with nothing but the file. Never give a number a new
 * meaning.
 */
#define OJO_IMPLEMENTATION
#include "ojo.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  VIDEO_FRAME = OJO_APPLICATION_TYPE_FIRST, /* payload: frame number, with its size */
  VIDEO_QUALITY,                            /* payload: level; nothing else */
  VIDEO_GAP,                                /* payload: first missing frame, with how many */
  VIDEO_NOTE,                               /* payload: frame number, with text */
  VIDEO_HEADER                              /* payload: frame number, with bytes */
};

static const ojo_type video_types[] = {
  {VIDEO_FRAME, "VIDEO_FRAME", "Video", "a frame left the encoder: number, bytes", OJO_VALUE_NUMBER},
  {VIDEO_QUALITY, "VIDEO_QUALITY", "Video", "the encoder's level from now on", OJO_VALUE_NONE},
  {VIDEO_GAP, "VIDEO_GAP", "Video", "frames that never came", OJO_VALUE_RANGE},
  {VIDEO_NOTE, "VIDEO_NOTE", "Video", "what the encoder says about a frame", OJO_VALUE_TEXT},
  {VIDEO_HEADER, "VIDEO_HEADER", "Video", "a frame's header as sent", OJO_VALUE_BYTES},
};

/* Wrap what you record often, so that call sites can't mix up the arguments. These cost what ojo's own
 * helpers cost: one event of 24 bytes. */
static inline void video_frame(ojo_tracer *t, uint32_t flow, uint64_t number, uint64_t bytes) {
  ojo_record_sized(t, flow, VIDEO_FRAME, number, bytes);
}

static inline void video_note(ojo_tracer *t, uint32_t flow, uint64_t number, const char *text) {
  ojo_record_ext(t, flow, VIDEO_NOTE, number, text, strlen(text));
}

/* Bytes are a u16 length, then the bytes. Headers are fine; payload, keys and tokens don't belong here. */
static void video_header(ojo_tracer *t, uint32_t flow, uint64_t number, const void *header,
                         uint16_t length) {
  unsigned char bytes[2 + 64];
  if (length > 64) length = 64;
  memcpy(bytes, &length, 2);
  memcpy(bytes + 2, header, length);
  ojo_record_ext(t, flow, VIDEO_HEADER, number, bytes, 2u + length);
}

int main(void) {
  ojo_tracer *trace;
  ojo_desc desc = {.dir = getenv("OJO_DIR"), .types = video_types,
                   .type_count = sizeof video_types / sizeof *video_types};
  ojo_result result = ojo_open(&trace, &desc);
  if (result != OJO_OK) /* the program goes on: trace is NULL, and that is a tracer that is off */
    fprintf(stderr, "2_custom_types: no trace: %s\n", ojo_result_string(result));

  uint32_t flow = ojo_flow_open(trace, &(ojo_flow_desc){.key = 0x5EED, .protocol = "rtp"});
  ojo_record(trace, flow, VIDEO_QUALITY, 3);
  for (uint64_t number = 0; number < 30; number++) {
    uint64_t bytes = number % 10 == 0 ? 24000 : 3000 + 10 * number;
    if (number == 12) { /* the encoder skips two frames. A range is given by its length, shown by its end */
      ojo_record_sized(trace, flow, VIDEO_GAP, 12, 2);
      number = 14;
    }
    video_frame(trace, flow, number, bytes);
    if (number % 10 == 0) {
      const unsigned char header[] = {0x80, 0x60, 0, (unsigned char)number};
      video_note(trace, flow, number, "key frame");
      video_header(trace, flow, number, header, sizeof header);
    }
    ojo_packet_sent_sized(trace, flow, number, bytes); /* standard types beside your own */
  }

  ojo_enable(trace, OJO_CATEGORY_PACKET); /* from here on the application's own types are left out */
  video_note(trace, flow, 30, "not recorded");
  printf("recorded %" PRIu64 " events\n", ojo_query_stats(trace).recorded);
  return ojo_close(trace) != OJO_OK;
}
