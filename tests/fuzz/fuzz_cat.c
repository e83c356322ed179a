/* SPDX-License-Identifier: MIT
 *
 * fuzz_cat.c - ojo-cat, whole, over a directory or standard input. What it prints must be what it claims
 * to be (valid.h), with as many rows as there are events; nothing from a file may reach a terminal raw.
 * Choices: [0] bits below; [1] format or report; [2] sample that options are made of; [3] limit.
 */
#define _DEFAULT_SOURCE 1 /* stdio.h comes before ojo.h */
#include <stdio.h>

static FILE *fuzz_talk; /* what ojo-cat says on stderr */
static int fuzz_terminal;
static int fuzz_isatty(int fd) { return fuzz_terminal && fd != 2; }

#undef stderr
#define stderr fuzz_talk
#define isatty fuzz_isatty
#define main ojo_cat_main
#include "../../tools/ojo-cat.c"
#undef main
#undef isatty
#undef stderr
#include "fuzz.h"
#include "valid.h"

enum { TERMINAL = 1, STRICT = 2, LIMIT = 4, FILTER = 8, STDIN = 16, NAMES = 32, TIMES = 64, CHAIN = 128 };

#define FORMATS 8u
#define ALL_FORMATS 8u /* in choices[1]: each of them in turn */
#define ARGUMENTS_MAX 16

typedef struct arguments {
  char *list[ARGUMENTS_MAX];
  char text[8][NAME_BYTES_MAX];
  int count, texts;
} arguments;

static void add(arguments *a, const char *text) { a->list[a->count++] = (char *)(uintptr_t)text; }
static void add_number(arguments *a, const char *option, uint64_t number) {
  char *text = a->text[a->texts++];
  snprintf(text, sizeof a->text[0], "%llu", (unsigned long long)number);
  add(a, option);
  add(a, text);
}
static void add_name(arguments *a, const char *option, const char *name) {
  char *text = a->text[a->texts++];
  snprintf(text, sizeof a->text[0], "%s", name);
  add(a, option);
  add(a, text);
}

void fuzz_forget_flows(void); /* of fuzz_human.c */

static bool is_csv, is_json, is_ndjson;

static void choose_format(arguments *a, ojo_reader *r, unsigned format, const uint8_t *choices,
                          const ojo_reader_event *e) {
  static const char *const formats[] = {"csv", "json", "ndjson", "text"};
  is_csv = format == 0;
  is_json = format == 1;
  is_ndjson = format == 2;
  if (format < 4) {
    add(a, "-f");
    add(a, formats[format]);
  } else if (format == 4) {
    add(a, "--stats");
  } else if (format == 5) {
    add(a, "--flows");
  } else if (format == 6) {
    char *text = a->text[a->texts++];
    snprintf(text, sizeof a->text[0], "%llu:%llu", (unsigned long long)e->flow, (unsigned long long)e->payload);
    add(a, "--packet");
    add(a, text);
  } else if (choices[0] & NAMES && ojo_reader_type(r, e)->name[0]) {
    add_name(a, "--plot", ojo_reader_type(r, e)->name);
  } else {
    add_number(a, "--plot", e->type);
  }
}
static void choose_filter(arguments *a, ojo_reader *r, const uint8_t *choices, const ojo_reader_event *e) {
  const ojo_reader_type_info *type = ojo_reader_type(r, e);
  char id[33];
  switch (choices[3] % 5) {
    case 0: add_number(a, "--flow", e->flow); break;
    case 1:
      if (choices[0] & NAMES && type->name[0]) add_name(a, "--type", type->name);
      else add_number(a, "--type", e->type);
      break;
    case 2: add_name(a, "--category", type->category); break;
    case 3: add_number(a, "--thread", e->thread); break;
    default:
      put_hex((unsigned char *)id, ojo_reader_trace(r, e->trace)->id, 16);
      id[32] = 0;
      add_name(a, "--trace", id);
  }
}

static void check_output(const char *path, const fuzz_seen *seen, bool all) {
  size_t at = 0, rows = seen->count, length = 0;
  const char *why;
  FILE *f = fopen(path, "rb");
  struct stat st;
  if (!f) return; /* nothing to read: said on stderr */
  FUZZ_CHECK(fstat(fileno(f), &st) == 0, "no size of the output");
  unsigned char *text = malloc((size_t)st.st_size + 1);
  if (st.st_size) length = fread(text, 1, (size_t)st.st_size, f);
  fclose(f);
  text[length] = 0;
  if (is_csv && length) why = valid_csv(text, length, fuzz_terminal, &at, &rows);
  else if (is_json && length) why = valid_json(text, length, &at, &rows);
  else if (is_ndjson) why = valid_ndjson(text, length, &at, &rows);
  else why = valid_text(text, length, fuzz_terminal, &at);
  FUZZ_CHECK(!why, "output: %s at %zu: %.60s", why, at, text + (at > 20 ? at - 20 : 0));
  FUZZ_CHECK(!all || !length || rows == seen->count, "%zu rows of %llu events", rows, (unsigned long long)seen->count);
  free(text);
}

static void run_cat(arguments *a, const char *input) {
  static const int caught[] = {SIGPIPE, SIGINT, SIGTERM};
  struct sigaction before[3];
  char *said = NULL;
  size_t length = 0, at = 0;
  int in = input ? open(input, O_RDONLY | O_CLOEXEC) : -1, stdin_before = -1;
  if (in >= 0) {
    stdin_before = dup(0);
    dup2(in, 0);
    close(in);
  }
  for (int i = 0; i < 3; i++) sigaction(caught[i], NULL, &before[i]);
  fuzz_talk = open_memstream(&said, &length);
  FUZZ_CHECK(fuzz_talk, "out of memory");
  optind = 0;
  fuzz_forget_flows();
  int code = ojo_cat_main(a->count, a->list);
  fclose(fuzz_talk);
  for (int i = 0; i < 3; i++) sigaction(caught[i], &before[i], NULL);
  if (stdin_before >= 0) {
    dup2(stdin_before, 0);
    close(stdin_before);
  }
  const char *why = valid_text((unsigned char *)said, length, false, &at);
  FUZZ_CHECK(!why, "stderr: %s at %zu: %s", why, at, said);
  FUZZ_CHECK(code >= EXIT_OK && code <= EXIT_STRICT, "exit code %d", code);
  free(said);
}

/* Runs ojo-cat over the directory, or over the file `input` as standard input, in one format. */
static void print(ojo_reader *r, const char *directory, const char *input, const uint8_t *choices, unsigned format,
                  const fuzz_seen *seen) {
  static const ojo_reader_event none;
  const char *output = fuzz_path("in/printed");
  const ojo_reader_event *e = seen->samples ? &seen->sample[choices[2] % seen->samples] : &none;
  arguments a = {.count = 0};
  add(&a, "ojo-cat");
  add(&a, "-o");
  add(&a, output);
  choose_format(&a, r, seen->samples ? format : format % 4, choices, e);
  if (choices[0] & STRICT) add(&a, "--strict");
  if (choices[0] & LIMIT) add_number(&a, "--limit", choices[3]);
  if (seen->samples && choices[0] & FILTER) choose_filter(&a, r, choices, e);
  if (choices[0] & TIMES) add_number(&a, "--until", e->time_ns);
  if (choices[0] & CHAIN && e->flow) add_number(&a, "--chain", e->flow);
  add(&a, input ? "-" : directory);
  add(&a, NULL);
  a.count--;
  run_cat(&a, input);
  check_output(output, seen, !(choices[0] & (LIMIT | FILTER | TIMES | CHAIN)));
  unlink(output);
}

void fuzz_cat(const uint8_t *choices, const uint8_t *data, size_t size) {
  const char *first, *directory = fuzz_spread(data, size, &first);
  const char *input = choices[0] & STDIN ? first : NULL;
  ojo_reader_desc desc = {.path = input ? input : directory};
  ojo_reader *r;
  fuzz_seen seen;
  FUZZ_CHECK(ojo_reader_open(&r, &desc) == OJO_OK || r, "no reader");
  fuzz_read(r, size / 24, &seen);
  fuzz_terminal = choices[0] & TERMINAL;
  if (choices[1] & ALL_FORMATS)
    for (unsigned format = 0; format < FORMATS; format++) print(r, directory, input, choices, format, &seen);
  else print(r, directory, input, choices, choices[1] % FORMATS, &seen);
  ojo_reader_close(r);
  fuzz_gather();
}
