/* SPDX-License-Identifier: MIT
 *
 * fuzz.c - how the targets are driven: by libFuzzer or AFL++ (LLVMFuzzerTestOneInput), or by a plain main
 * (FUZZ_MAIN) that replays files, and can go on with mutations of them, for any compiler:
 *
 *   OJO_FUZZ_TARGET=NAME fuzz [--seconds N] [--seed N] PATH...    PATH: an input, or a directory of them
 *   OJO_FUZZ_TARGET=NAME fuzz --pack OUT CHOICES [N:]FILE...      makes an input; N: the part's name
 *
 * What is found is left in $OJO_FUZZ_FOUND (default: fuzz.found) by the plain main.
 */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const fuzz_target targets[] = {
    {"memory", FUZZ_FILE, NULL, fuzz_memory},
    {"file", FUZZ_FILE, NULL, fuzz_file},
    {"directory", FUZZ_PARTS, NULL, fuzz_directory},
    {"recover", FUZZ_PATCHES, fuzz_pool_start, fuzz_recover},
    {"cat", FUZZ_PARTS, NULL, fuzz_cat},
};
static const fuzz_target *target;
static char work[PATH_MAX - 256];
static pid_t owner; /* of `work` */
static void (*at_end[4])(void);

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);
__attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room);
__attribute__((weak)) void __sanitizer_set_death_callback(void (*fn)(void));

/* ---- files */

const char *fuzz_path(const char *name) {
  static char paths[8][PATH_MAX];
  static unsigned turn;
  char *path = paths[turn++ % 8];
  snprintf(path, sizeof paths[0], "%s/%s", work, name);
  return path;
}
void fuzz_write(const char *path, const void *bytes, size_t length) {
  FILE *f = fopen(path, "wb");
  bool ok = f && (length == 0 || fwrite(bytes, length, 1, f) == 1);
  if (f && fclose(f) != 0) ok = false;
  FUZZ_CHECK(ok, "can't write %s: %s", path, strerror(errno));
}
void fuzz_clear(const char *directory, bool remove_it) {
  DIR *listing = opendir(directory);
  for (struct dirent *entry; listing && (entry = readdir(listing));)
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
      unlinkat(dirfd(listing), entry->d_name, 0);
  if (listing) closedir(listing);
  if (remove_it) rmdir(directory);
}
void fuzz_at_end(void (*fn)(void)) {
  size_t i = 0;
  while (at_end[i]) i++;
  at_end[i] = fn;
}
static void end(void) {
  static const char *const directories[] = {"in/output", "in/raw", "in/schema", "in/staging", "in", "."};
  if (getpid() != owner) return; /* a fork child: the directory is its parent's; or it is done */
  owner = 0;
  for (size_t i = 0; i < sizeof at_end / sizeof *at_end; i++)
    if (at_end[i]) at_end[i]();
  for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
    fuzz_clear(fuzz_path(directories[i]), true);
  rmdir(work);
}

/* ---- inputs */

void fuzz_fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fputs("fuzz: FOUND: ", stdout);
  vprintf(format, args);
  putchar('\n');
  fflush(stdout);
  va_end(args);
  end();
  abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  const char *name = getenv("OJO_FUZZ_TARGET"), *temporary = getenv("TMPDIR");
  (void)argc;
  (void)argv;
  for (size_t i = 0; name && i < sizeof targets / sizeof *targets; i++)
    if (strcmp(targets[i].name, name) == 0) target = &targets[i];
  if (!target) {
    fputs("fuzz: OJO_FUZZ_TARGET: memory, file, directory, recover or cat\n", stderr);
    exit(2);
  }
  snprintf(work, sizeof work, "%s/ojo_fuzz_XXXXXX", temporary && *temporary ? temporary : "/tmp");
  FUZZ_CHECK(mkdtemp(work) && mkdir(fuzz_path("in"), 0700) == 0, "%s: %s", work, strerror(errno));
  owner = getpid();
  atexit(end);
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(end);
  if (target->start) target->start();
  return 0;
}
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < FUZZ_CHOICES) return 0;
  target->run(data, data + FUZZ_CHOICES, size - FUZZ_CHOICES);
  return 0;
}
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed) {
  return fuzz_mutate(target->layout, data, size, room, seed, LLVMFuzzerMutate);
}

/* ---- the plain main */

#ifdef FUZZ_MAIN
#include <sys/resource.h>
#include <time.h>

#define INPUT_BYTES_MAX 65536u
#define INPUT_SECONDS_MAX 30u /* sanitizers, a busy machine: still a hang */
#define RSS_KIB_MAX (768u << 10)

static struct {
  uint8_t *data;
  size_t size;
  const char *path;
} *corpus;
static size_t corpus_count;
static uint8_t now[INPUT_BYTES_MAX];
static size_t now_size;
static const char *now_path;

static void save(int number) {
  const char *found = getenv("OJO_FUZZ_FOUND");
  FILE *f = fopen(found ? found : "fuzz.found", "wb");
  if (f) {
    fwrite(now, now_size, 1, f);
    fclose(f);
  }
  printf("fuzz: FOUND: signal %d by %s, as it is in %s\n", number, now_path, found ? found : "fuzz.found");
  fflush(stdout);
  signal(number, SIG_DFL);
  raise(number);
}
static void save_at_death(void) {
  save(SIGABRT);
}
static void run(const uint8_t *data, size_t size, const char *path) {
  struct rusage used;
  now_path = path;
  now_size = size;
  if (data != now) memcpy(now, data, size);
  alarm(INPUT_SECONDS_MAX);
  LLVMFuzzerTestOneInput(data, size);
  alarm(0);
  getrusage(RUSAGE_SELF, &used);
  FUZZ_CHECK(used.ru_maxrss < RSS_KIB_MAX, "%ld KiB of memory", used.ru_maxrss);
}
static size_t read_file(const char *path, uint8_t *to, size_t room) {
  FILE *f = fopen(path, "rb");
  size_t n = f ? fread(to, 1, room, f) : 0;
  if (!f) fprintf(stderr, "fuzz: %s: %s\n", path, strerror(errno));
  if (!f) exit(2);
  fclose(f);
  return n;
}
static void add(const char *path) {
  struct dirent **names = NULL;
  struct stat st;
  int count = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? scandir(path, &names, NULL, alphasort) : -1;
  for (int i = 0; i < count; i++) {
    char inner[PATH_MAX];
    snprintf(inner, sizeof inner, "%s/%s", path, names[i]->d_name);
    if (names[i]->d_name[0] != '.') add(inner);
    free(names[i]);
  }
  free(names);
  if (count >= 0) return;
  static uint8_t buffer[INPUT_BYTES_MAX];
  size_t size = read_file(path, buffer, sizeof buffer);
  corpus = realloc(corpus, (corpus_count + 1) * sizeof *corpus);
  corpus[corpus_count].data = malloc(size + 1);
  memcpy(corpus[corpus_count].data, buffer, size);
  corpus[corpus_count].size = size;
  corpus[corpus_count++].path = strdup(path);
}
static size_t flip_bit(uint8_t *data, size_t size, size_t room) {
  (void)room;
  if (size) data[(size_t)rand() % size] ^= (uint8_t)(1u << rand() % 8);
  return size;
}

static int pack(int argc, char **argv) {
  static uint8_t input[1u << 20];
  size_t n = FUZZ_CHOICES;
  uint64_t choices = strtoull(argv[1], NULL, 16);
  for (unsigned i = 0; i < FUZZ_CHOICES; i++) input[i] = (uint8_t)(choices >> 8 * (7 - i));
  for (int i = 2; i < argc; i++) {
    bool part = target->layout == FUZZ_PARTS;
    uint8_t *head = input + n;
    if (part) n += FUZZ_PART_HEAD;
    size_t length = read_file(part ? argv[i] + 2 : argv[i], input + n, sizeof input - n);
    n += length;
    if (!part) continue;
    head[0] = (uint8_t)(argv[i][0] - '0');
    for (unsigned k = 0; k < 3; k++) head[1 + k] = (uint8_t)(length >> 8 * k);
  }
  fuzz_write(argv[0], input, n);
  return 0;
}

int main(int argc, char **argv) {
  long seconds = 0, seed = (long)time(NULL);
  LLVMFuzzerInitialize(&argc, &argv);
  if (argc > 3 && strcmp(argv[1], "--pack") == 0) return pack(argc - 2, argv + 2);
  for (int i = 1; i < argc; i++) {
    if (i + 1 < argc && strcmp(argv[i], "--seconds") == 0) seconds = atol(argv[++i]);
    else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0) seed = atol(argv[++i]);
    else add(argv[i]);
  }
  int const deadly[] = {SIGABRT, SIGALRM};
  for (size_t i = 0; i < 2; i++) signal(deadly[i], save);
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(save_at_death);
  for (size_t i = 0; i < corpus_count; i++) run(corpus[i].data, corpus[i].size, corpus[i].path);
  time_t until = time(NULL) + seconds;
  uint64_t runs = 0;
  srand((unsigned)seed);
  if (seconds) printf("fuzz: %s: seed %ld\n", target->name, seed);
  for (; corpus_count && seconds && time(NULL) < until; runs++) {
    size_t i = (size_t)rand() % corpus_count, size = corpus[i].size;
    memcpy(now, corpus[i].data, size);
    for (int times = 1 + rand() % 4; times; times--)
      size = fuzz_mutate(target->layout, now, size, sizeof now, (uint64_t)rand() << 31 ^ (uint64_t)rand(), flip_bit);
    run(now, size, corpus[i].path);
  }
  printf("fuzz: %s: %zu inputs, %llu mutations\n", target->name, corpus_count, (unsigned long long)runs);
  for (size_t i = 0; i < corpus_count; i++) {
    free(corpus[i].data);
    free((void *)(uintptr_t)corpus[i].path);
  }
  free(corpus);
  return corpus_count == 0;
}
#endif
