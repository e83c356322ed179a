/* SPDX-License-Identifier: MIT
 * Strict checks of what ojo-cat prints. See valid.h. */
#include "valid.h"

#include <string.h>

#define DEPTH_MAX 16

typedef struct input {
  const unsigned char *p, *end;
  size_t events; /* members of the array under the key "events" of the outermost object */
} input;

/* The length of the UTF-8 character at p; 0: none is there. */
static size_t character(const unsigned char *p, const unsigned char *end, uint32_t *code) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
  if (n == 0 || (size_t)(end - p) < n) return 0;
  *code = n == 1 ? p[0] : p[0] & (0x7Fu >> n);
  for (size_t i = 1; i < n; i++) {
    if (p[i] >> 6 != 2) return 0;
    *code = *code << 6 | (p[i] & 63u);
  }
  return *code < least[n] || *code > 0x10FFFF || (*code >= 0xD800 && *code < 0xE000) ? 0 : n;
}

/* ---- JSON */

static void space(input *in) {
  while (in->p < in->end && *in->p && strchr(" \t\r\n", *in->p)) in->p++;
}
static bool token(input *in, char c) {
  space(in);
  if (in->p == in->end || *in->p != (unsigned char)c) return false;
  in->p++;
  return true;
}
static const char *escape(input *in) {
  if (in->p == in->end || !*in->p || !strchr("\"\\/bfnrtu", *in->p)) return "an unknown escape";
  if (*in->p++ != 'u') return NULL;
  for (int i = 0; i < 4; i++, in->p++)
    if (in->p == in->end || !*in->p || !strchr("0123456789abcdefABCDEF", *in->p)) return "a bad \\u";
  return NULL;
}
static const char *string(input *in) {
  if (!token(in, '"')) return "no string";
  while (in->p < in->end) {
    uint32_t c;
    size_t n = character(in->p, in->end, &c);
    if (n == 0) return "not UTF-8";
    if (c < 0x20) return "a control character in a string";
    if ((c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029) return "DEL, C1 or a line separator";
    in->p += n;
    if (c == '"') return NULL;
    const char *why = c == '\\' ? escape(in) : NULL;
    if (why) return why;
  }
  return "a string without an end";
}
static bool digits(input *in) {
  const unsigned char *start = in->p;
  while (in->p < in->end && *in->p >= '0' && *in->p <= '9') in->p++;
  return in->p > start;
}
static const char *number(input *in) {
  const unsigned char *start;
  if (in->p < in->end && *in->p == '-') in->p++;
  start = in->p;
  if (!digits(in)) return "no value";
  if (*start == '0' && in->p - start > 1) return "a number with leading zeros";
  if (in->p < in->end && *in->p == '.' && (in->p++, !digits(in))) return "no digits behind the point";
  if (in->p < in->end && (*in->p | 32) == 'e') {
    in->p++;
    if (in->p < in->end && (*in->p == '+' || *in->p == '-')) in->p++;
    if (!digits(in)) return "no digits in the exponent";
  }
  return NULL;
}
static const char *value(input *in, int depth, size_t *members);
static const char *object(input *in, int depth, size_t *members) {
  if (token(in, '}')) return NULL;
  do {
    size_t inner = 0;
    space(in);
    const unsigned char *key = in->p;
    const char *why = string(in);
    if (why) return why;
    bool events = depth == DEPTH_MAX && in->p - key == 8 && memcmp(key, "\"events\"", 8) == 0;
    if (!token(in, ':')) return "no colon";
    why = value(in, depth - 1, &inner);
    if (why) return why;
    if (events) in->events = inner;
    ++*members;
  } while (token(in, ','));
  return token(in, '}') ? NULL : "no end of an object";
}
static const char *value(input *in, int depth, size_t *members) {
  static const char *const words[] = {"true", "false", "null"};
  size_t inner;
  if (depth == 0) return "too deep";
  if (token(in, '{')) return object(in, depth, members);
  if (token(in, '[')) {
    if (token(in, ']')) return NULL;
    do {
      const char *why = value(in, depth - 1, &inner);
      if (why) return why;
      ++*members;
    } while (token(in, ','));
    return token(in, ']') ? NULL : "no end of an array";
  }
  if (in->p < in->end && *in->p == '"') return string(in);
  for (size_t i = 0; i < 3; i++) {
    size_t n = strlen(words[i]);
    if ((size_t)(in->end - in->p) < n || memcmp(in->p, words[i], n) != 0) continue;
    in->p += n;
    return NULL;
  }
  return number(in);
}

const char *valid_json(const unsigned char *p, size_t length, size_t *at, size_t *events) {
  input in = {p, p + length, SIZE_MAX};
  size_t members = 0;
  const char *why = value(&in, DEPTH_MAX, &members);
  if (!why) space(&in);
  *at = (size_t)(in.p - p);
  *events = in.events;
  return why ? why : in.p < in.end ? "something behind the value" : NULL;
}
const char *valid_ndjson(const unsigned char *p, size_t length, size_t *at, size_t *lines) {
  size_t events;
  *lines = 0;
  for (size_t start = 0; start < length; ++*lines) {
    const unsigned char *end = memchr(p + start, '\n', length - start);
    *at = start;
    if (!end) return "a line without an end";
    const char *why = valid_json(p + start, (size_t)(end - p) - start, at, &events);
    *at += start;
    if (why) return why;
    start = (size_t)(end - p) + 1;
  }
  return NULL;
}

/* ---- CSV */

/* A field from p on; returns its end. *why: what is wrong with it. */
static const unsigned char *field_end(const unsigned char *p, const unsigned char *end, bool terminal,
                                      const char **why) {
  bool quoted = p < end && *p == '"';
  if (quoted) p++;
  while (p < end) {
    uint32_t c;
    size_t n = character(p, end, &c);
    if (n == 0) {
      *why = "not UTF-8";
      break;
    }
    if (c == 0) *why = "a NUL";
    bool control = (c < 0x20 && c != '\n' && c != '\r' && c != '\t') || (c >= 0x7F && c < 0xA0);
    if (terminal && control) *why = "a control character on a terminal";
    if (quoted && c == '"') {
      if (p + 1 == end || p[1] != '"') return p + 1;
      p++;
    } else if (!quoted) {
      if (c == ',' || c == '\n') return p;
      if (c == '"' || c == '\r') *why = "a quote or CR in a field without quotes";
    }
    if (*why) break;
    p += n;
  }
  if (!*why) *why = "a row without an end";
  return p;
}
const char *valid_csv(const unsigned char *p, size_t length, bool terminal, size_t *at, size_t *rows) {
  static const char heading[] = "timestamp_ns,flow_id,event_type,name,category,payload,thread_id,extension\n";
  const unsigned char *begin = p, *end = p + length;
  const char *why = NULL;
  *rows = 0;
  *at = 0;
  if (length < sizeof heading - 1 || memcmp(p, heading, sizeof heading - 1) != 0) return "no heading";
  for (p += sizeof heading - 1; p < end; ++*rows)
    for (int i = 0; i < 8; i++) {
      const unsigned char *stop = field_end(p, end, terminal, &why);
      *at = (size_t)(stop - begin);
      if (why) return why;
      if (stop == end || *stop != (i < 7 ? ',' : '\n')) return "not eight fields";
      if (i < 3 || i == 5 || i == 6) {
        if (p == stop) return "a number is missing";
        for (; p < stop; p++)
          if (*p < '0' || *p > '9') return "not a number";
      }
      p = stop + 1;
    }
  return NULL;
}

/* ---- text */

const char *valid_text(const unsigned char *p, size_t length, bool colour, size_t *at) {
  const unsigned char *begin = p, *end = p + length;
  while (p < end) {
    uint32_t c;
    size_t n = character(p, end, &c);
    *at = (size_t)(p - begin);
    if (n == 0) return "not UTF-8";
    if (c == 0x1B && colour && end - p > 2 && p[1] == '[') {
      for (p += 2; p < end && *p >= '0' && *p <= '9';) p++;
      if (p == end || *p++ != 'm') return "an escape sequence";
      continue;
    }
    if ((c < 0x20 && c != '\n') || (c >= 0x7F && c < 0xA0)) return "a control character";
    if ((c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0x200E || c == 0x200F)
      return "a character that turns the writing";
    p += n;
  }
  return length && end[-1] != '\n' ? "a line without an end" : NULL;
}
