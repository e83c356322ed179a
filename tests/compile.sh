#!/bin/sh
# SPDX-License-Identifier: MIT
# Compiles the headers in every way that they promise: by gcc and clang as C11 to C17 and C++11 to C++20
# with strict flags, first, late, twice, in any order, static, disabled, in one program several times.
set -u
cd "$(dirname "$0")/.." || exit 1
root=$(pwd)
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
work=$BUILD/tests/tmp/compile.$$
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
strict='-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror'
passed=0 failed=0 skipped=0

pass() { passed=$((passed + 1)); }
fail() { # fail NAME [FILE]
  failed=$((failed + 1))
  echo "FAILED: $1"
  [ $# -lt 2 ] || head -n 8 "$2"
}
skip() { # skip NAME COUNT REASON
  skipped=$((skipped + $2))
  echo "skip: $1: $3 ($2 tests)"
}
check() { # check NAME COMMAND...: a test that succeeds if the command does, and says nothing
  name=$1
  shift
  if "$@" > "$work/output" 2>&1 && [ ! -s "$work/output" ]; then pass; else fail "$name: $*" "$work/output"; fi
}
have() { command -v "$1" >/dev/null 2>&1; }

# ---- the ways to include: one file each, valid as C and C++

cat > "$work/first.c" <<'E'
#define OJO_IMPLEMENTATION
#include "ojo.h"
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"
#include <stdio.h>
int main(void) { return ojo_close(NULL); }
E
cat > "$work/reader_only.c" <<'E'
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"
int main(void) { ojo_reader_close(NULL); return 0; }
E
cat > "$work/other_order.c" <<'E'
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"
#define OJO_IMPLEMENTATION
#include "ojo.h"
int main(void) { return ojo_close(NULL); }
E
cat > "$work/twice.c" <<'E'
#include "ojo.h"
#include "ojo.h"
#include "ojo_reader.h"
#define OJO_IMPLEMENTATION
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"
#include "ojo.h"
#include "ojo.h"
#include "ojo_reader.h"
int main(void) { return ojo_close(NULL); }
E
cat > "$work/declarations.c" <<'E'
#include "ojo_reader.h"
#include "ojo.h"
int use(ojo_tracer *t, ojo_reader *r);
int use(ojo_tracer *t, ojo_reader *r) { return ojo_close(t) + (int)ojo_reader_trace_count(r); }
E
cat > "$work/static.c" <<'E'
#define OJO_STATIC
#define OJO_IMPLEMENTATION
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"
int main(void) { return ojo_close(NULL); }
E
cat > "$work/late.c" <<'E'
#include <stdio.h>
#include <pthread.h>
#include <time.h>
#include <string.h>
#define OJO_IMPLEMENTATION
#define OJO_READER_IMPLEMENTATION
#include "ojo.h"
#include "ojo_reader.h"
int main(void) { return ojo_close(NULL); }
E
printf '#include <stdio.h>\n#define OJO_IMPLEMENTATION\n#include "ojo.h"\n' > "$work/late_ojo.c"
printf '#include <stdio.h>\n#define OJO_READER_IMPLEMENTATION\n#include "ojo_reader.h"\n' > "$work/late_ojo_reader.c"
cat > "$work/late_declarations.c" <<'E'
#include <stdio.h>
#include <pthread.h>
#include "ojo.h"
#include "ojo_reader.h"
int use(ojo_tracer *t);
int use(ojo_tracer *t) { return ojo_close(t); }
E
cat > "$work/forward.c" <<'E'
struct ojo_tracer;
struct connection { struct ojo_tracer *tracer; };
int use(struct connection *c);
int use(struct connection *c) { return c->tracer != 0; }
#include "ojo.h"
static int call(struct ojo_tracer *t) { return ojo_close(t); }
int use2(struct connection *c);
int use2(struct connection *c) { return call(c->tracer); }
E
cat > "$work/usage.cc" <<'E'
#define OJO_IMPLEMENTATION
#include "ojo.h"
#define OJO_READER_IMPLEMENTATION
#include "ojo_reader.h"
static uint32_t connect_something(ojo_tracer *t) {
  ojo_flow_desc f = {};
  f.role = OJO_ROLE_CLIENT;
  return ojo_flow_open(t, &f);
}
int main(int argc, char **argv) {
  ojo_tracer *t;
  ojo_desc d = {};
  d.dir = argc > 1 ? argv[1] : "traces";
  if (ojo_open(&t, &d) != OJO_OK) return 1;
  uint32_t flow = connect_something(t);
  ojo_packet_sent_sized(t, flow, 0, 1200);
  ojo_packet_acked_sized(t, flow, 0, 1200);
  if (ojo_close(t) != OJO_OK) return 2;
  ojo_reader *r;
  ojo_reader_desc rd = {};
  rd.path = d.dir;
  if (ojo_reader_open(&r, &rd) != OJO_OK) return 3;
  ojo_reader_event e;
  int events = 0;
  while (ojo_reader_next(r, &e)) events++;
  ojo_reader_close(r);
  return events == 3 ? 0 : 4;
}
E
for file in "$work"/*.c; do cp "$file" "${file%.c}.cc"; done

# ---- the matrix

matrix() { # matrix COMPILER EXTENSION STANDARDS...
  compiler=$1 extension=$2
  shift 2
  for standard in "$@"; do
    for way in first reader_only other_order twice declarations static forward late_declarations; do
      check "$compiler $standard $way" $compiler -std=$standard $strict -I. -fsyntax-only "$work/$way.$extension"
    done
    case $standard in
    c11 | c17 | c99) ;; # late is an error there: below
    *) check "$compiler $standard late" $compiler -std=$standard $strict -I. -fsyntax-only "$work/late.$extension" ;;
    esac
    check "$compiler $standard disabled" $compiler -std=$standard $strict -DOJO_DISABLE -DOJO_IMPLEMENTATION \
      -I. -fsyntax-only -x "$([ "$extension" = c ] && echo c || echo c++)" tests/compile/every_call.c
  done
  # What only an optimiser sees.
  first=$1
  for level in -O0 -O1 -O2 -O3; do
    check "$compiler $first $level" $compiler -std=$first $strict $level -I. -c -o "$work/object.o" "$work/first.$extension"
  done
  check "$compiler $first -fPIC -shared" $compiler -std=$first $strict -O2 -fPIC -shared -I. \
    -o "$work/libtraced.so" "$work/static.$extension" -pthread
}

late() { # late COMPILER STANDARD [HEADER]: under strict C a late implementation is one clear error
  for header in ${3:-ojo ojo_reader}; do
    $1 -std=$2 $strict -I. -c -o "$work/object.o" "$work/late_$header.c" > "$work/output" 2>&1
    status=$? errors=$(grep -c 'error:' "$work/output")
    if [ "$status" != 0 ] && [ "$errors" = 1 ] && grep -q "error:.*$header.h.*first" "$work/output"; then pass
    else fail "$1 $2: a late implementation of $header.h gives one clear #error, not $errors errors" "$work/output"; fi
  done
  [ $# -lt 3 ] || return 0
  check "$1 $2: a late include with _DEFAULT_SOURCE" $1 -std=$2 $strict -D_DEFAULT_SOURCE -I. -fsyntax-only "$work/late.c"
  check "$1 $2: a late include with _GNU_SOURCE" $1 -std=$2 $strict -D_GNU_SOURCE -I. -fsyntax-only "$work/late.c"
}

macros() { # macros COMPILER STANDARD LANGUAGE: the ways around what a system may lack, alone and together
  for flags in -DOJO_NO_TSC -DOJO_NO_TMPFS -DOJO_NO_ATFORK "-DOJO_NO_TSC -DOJO_NO_TMPFS -DOJO_NO_ATFORK"; do
    check "$1 $2 $flags" $1 -std=$2 $strict $flags -I. -c -o "$work/macros.o" -x $3 "$work/first.c"
    case $flags in *OJO_NO_ATFORK)
      if have nm; then check "$1 $2 $flags: no atfork" sh -c "! nm '$work/macros.o' | grep -i ' [uw] .*atfork'"; fi ;;
    esac
  done
}

every_call() { # every_call COMPILER STANDARD LANGUAGE: links and runs, on and disabled
  flags="-std=$2 $strict -I. -x $3"
  if $1 $flags tests/compile/every_call.c tests/compile/run_every_call.c -o "$work/calls" -pthread > "$work/output" 2>&1 &&
    "$work/calls" "$work/calls.traces" > "$work/output" 2>&1 && [ ! -s "$work/output" ]; then pass
  else fail "$1 $2: every call, recording, exit code $?" "$work/output"; fi
  if $1 $flags -DOJO_DISABLE tests/compile/every_call.c tests/compile/run_every_call.c -o "$work/calls" > "$work/output" 2>&1 &&
    "$work/calls" "$work/no.traces" > "$work/output" 2>&1 && [ ! -e "$work/no.traces" ]; then pass
  else fail "$1 $2: every call, disabled, exit code $?" "$work/output"; fi
  rm -rf "$work/calls.traces"
}

disabled() { # disabled COMPILER: strict C99; nothing of the tracer is left in the object
  check "$1 c99 disabled" $1 -std=c99 -pedantic-errors $strict -DOJO_DISABLE -I. -O2 -c -o "$work/disabled.o" tests/compile/every_call.c
  if have nm; then
    nm "$work/disabled.o" > "$work/output" 2>&1
    if grep -E ' U .*ojo' "$work/output"; then fail "$1: a disabled object needs nothing"; else pass; fi
  fi
  check "$1 c99 disabled, implementation asked for" $1 -std=c99 -pedantic-errors $strict -DOJO_DISABLE -DOJO_IMPLEMENTATION -I. -fsyntax-only tests/compile/every_call.c
}

copies() { # copies CC CC_FOR_B LANGUAGE_FOR_B
  b="-std=c11"
  [ "$3" = c ] || b="-std=c++11"
  if $1 -std=c11 $strict -O2 -I. -DCOPY=a -DOJO_STATIC -c -o "$work/a.o" tests/compile/copy.c > "$work/output" 2>&1 &&
    $2 $b $strict -O2 -I. -DCOPY=b -DOJO_STATIC -x "$3" -c -o "$work/b.o" tests/compile/copy.c >> "$work/output" 2>&1 &&
    $1 -std=c11 $strict -O2 -I. -DCOPY=c -c -o "$work/c.o" tests/compile/copy.c >> "$work/output" 2>&1 &&
    $1 -std=c11 $strict -O2 -c -o "$work/main.o" tests/compile/copies.c >> "$work/output" 2>&1 &&
    $1 "$work/main.o" "$work/a.o" "$work/b.o" "$work/c.o" -o "$work/copies" -pthread >> "$work/output" 2>&1 &&
    "$work/copies" "$work/ta" "$work/tb" "$work/tc" >> "$work/output" 2>&1 && [ ! -s "$work/output" ]; then pass
  else fail "$1, $2 as $3: three copies in one program, exit code $?" "$work/output"; fi
  # The same with copy b in a shared library.
  if $2 $b $strict -O2 -fPIC -shared -I. -DCOPY=b -DOJO_STATIC -x "$3" -o "$work/libb.so" tests/compile/copy.c -pthread > "$work/output" 2>&1 &&
    $1 "$work/main.o" "$work/a.o" "$work/c.o" -L"$work" -lb -Wl,-rpath,"$work" -o "$work/copies" -pthread >> "$work/output" 2>&1 &&
    "$work/copies" "$work/sa" "$work/sb" "$work/sc" >> "$work/output" 2>&1 && [ ! -s "$work/output" ]; then pass
  else fail "$1, $2 as $3: one of the copies in a shared library, exit code $?" "$work/output"; fi
  rm -rf "$work/sa" "$work/sb" "$work/sc"
  rm -rf "$work/ta" "$work/tb" "$work/tc"
}

for compiler in gcc clang; do
  if have $compiler; then
    matrix $compiler c c11 c17 gnu11
    late $compiler c11
    late $compiler c17
    every_call $compiler c11 c
    every_call $compiler gnu11 c
    disabled $compiler
    copies $compiler $compiler c
    macros $compiler c11 c
  else skip "$compiler" 56 "not installed"; fi
done
for compiler in g++ clang++; do
  if have $compiler && echo 'int main() {}' > "$work/probe.cc" && $compiler -o "$work/probe" "$work/probe.cc" 2>/dev/null; then
    matrix $compiler cc c++11 c++14 c++17 c++20
    every_call $compiler c++11 c++
    every_call $compiler c++20 c++
    macros $compiler c++11 c++
    copies "$([ $compiler = g++ ] && echo "${CC:-cc}" || echo clang)" $compiler c++
    for standard in c++11 c++20; do
      if $compiler -std=$standard $strict -I. -o "$work/usage" "$work/usage.cc" -pthread > "$work/output" 2>&1 &&
        "$work/usage" "$work/usage.traces" > "$work/output" 2>&1; then pass
      else fail "$compiler $standard: ojo_desc d = {}; and so on, exit code $?" "$work/output"; fi
      rm -rf "$work/usage.traces"
    done
  else skip "$compiler" 54 "not installed"; fi
done
if have x86_64-w64-mingw32-gcc; then
  disabled x86_64-w64-mingw32-gcc
  check "mingw links the disabled program" x86_64-w64-mingw32-gcc -std=c99 $strict -DOJO_DISABLE -I. \
    -o "$work/calls.exe" tests/compile/every_call.c tests/compile/run_every_call.c
else skip x86_64-w64-mingw32-gcc 4 "not installed"; fi

# ---- ojo_bpf.h: the program's half in the same ways, the kernel's half, and its example

bpf="$work/bpf"
mkdir -p "$bpf"
cat > "$bpf/first.c" <<'E'
#define OJO_BPF_IMPLEMENTATION
#define OJO_IMPLEMENTATION
#include "ojo_bpf.h"
int main(void) { return ojo_bpf_close(NULL); }
E
cat > "$bpf/twice.c" <<'E'
#include "ojo_bpf.h"
#include "ojo.h"
#define OJO_IMPLEMENTATION
#include "ojo_bpf.h"
#include "ojo.h"
#define OJO_BPF_IMPLEMENTATION
#include "ojo_bpf.h"
#include "ojo_bpf.h"
int main(void) { return ojo_bpf_close(NULL); }
E
cat > "$bpf/all.c" <<'E'
#define OJO_STATIC
#define OJO_IMPLEMENTATION
#define OJO_READER_IMPLEMENTATION
#define OJO_BPF_IMPLEMENTATION
#include "ojo_reader.h"
#include "ojo_bpf.h"
int main(void) { return ojo_bpf_close(NULL); }
E
cat > "$bpf/calls.c" <<'E'
#include "ojo_bpf.h"
static bool row(void *user, const ojo_bpf_connection *c) { return user != NULL && c->pid; }
int main(void) {
  ojo_bpf *b;
  ojo_bpf_desc d = ojo_bpf_query_desc(NULL);
  ojo_bpf_probe_info info;
  ojo_bpf_stats s = ojo_bpf_query_stats(NULL);
  return ojo_bpf_open(&b, &d) + ojo_bpf_poll(b, 0) + ojo_bpf_connections(b, row, NULL) + (int)s.events +
         (int)ojo_bpf_query_probes(b, &info, 1) + (ojo_bpf_fd(b) != -1) + ojo_bpf_close(b);
}
E
printf '#include <stdio.h>\n#define OJO_BPF_IMPLEMENTATION\n#include "ojo_bpf.h"\n' > "$work/late_ojo_bpf.c"
{
  printf '#define OJO_IMPLEMENTATION\n#define OJO_BPF_IMPLEMENTATION\n#include "ojo_bpf.h"\n#include <sys/socket.h>\n'
  printf 'int main(void) {\n'
  sed -n '/^ \* EXAMPLE/,/^ \* [A-Z]/{/^ \*       /s/^ \*       //p;}' ojo_bpf.h
  printf 'return 0;\n}\n'
} > "$bpf/example.c"
check "ojo_bpf.h: disabled, c99" ${CC:-cc} -std=c99 -pedantic-errors $strict -DOJO_DISABLE -I. -o "$bpf/calls" "$bpf/calls.c"
check "ojo_bpf.h: disabled, runs" "$bpf/calls"
if echo '#include <bpf/libbpf.h>' | ${CC:-cc} -E -x c - >/dev/null 2>&1; then
  for compiler in "gcc -std=c11" "gcc -std=c17" "clang -std=c11" "clang -std=gnu11" "g++ -std=c++11 -x c++" "g++ -std=c++20 -x c++" \
    "clang++ -std=c++11 -x c++"; do
    have ${compiler%% *} || { skip "ojo_bpf.h: $compiler" 5 "not installed"; continue; }
    for way in first twice all calls; do
      check "ojo_bpf.h: $compiler $way" $compiler $strict -I. -fsyntax-only "$bpf/$way.c"
    done
    check "ojo_bpf.h: $compiler -O2" $compiler $strict -O2 -I. -c -o "$work/object.o" "$bpf/all.c"
  done
  late gcc c11 ojo_bpf
  check "ojo_bpf.h: its EXAMPLE" ${CC:-cc} -std=c11 $strict -I. -fsyntax-only "$bpf/example.c"
  if echo 'int x;' | clang -target bpf -O2 -x c -c -o "$work/object.o" - 2>/dev/null; then
    check "ojo_bpf.h: the kernel's half" clang -target bpf -x c -O2 -g -Wall -Wextra -Wno-unused-parameter -Werror \
      "-I/usr/include/$(gcc -dumpmachine)" -c -o "$work/object.o" ojo_bpf.h
  else skip "ojo_bpf.h: the kernel's half" 1 "clang has no BPF target"; fi
else skip "ojo_bpf.h" 40 "libbpf is not installed"; fi

# ---- what a disabled header needs

files=$(${CC:-cc} -std=c99 -ffreestanding -DOJO_DISABLE -I. -M tests/compile/every_call.c 2>"$work/output" | tr -d '\\' |
  tr ' ' '\n' | sed -n 's|.*/||; /\.h$/p' | sort | tr '\n' ' ')
case $files in
"ojo.h stdbool.h stddef.h stdint"*) pass ;;
*) fail "disabled, ojo.h includes stdint, stddef and stdbool only: $files" "$work/output" ;;
esac

# ---- the public half: its size, what it drags in, what it costs

# Lines between the guard and its end, the leading doc block left out.
lines=$(awk '/^#ifndef OJO_H/ { on = 1 } on { n++ } /^#endif \/\* OJO_H \*\// { print n; exit }' ojo.h)
limit=870
if [ "${lines:-0}" -gt 100 ] && [ "$lines" -le $limit ]; then pass; else fail "the public half has $lines lines, at most $limit"; fi
public=$(awk '{ print } /^#endif \/\* OJO_H \*\// { exit }' ojo.h)
if printf '%s\n' "$public" | grep -nE '_Atomic|stdatomic|pthread\.h|<std(io|lib)\.h>|<string\.h>|thread_local'; then
  fail "the public half is free of _Atomic, pthread.h, stdio.h and thread_local"
else pass; fi

milliseconds() { # milliseconds FILE: wall time of one compilation of it, the best of 10
  best=999999
  for i in 1 2 3 4 5 6 7 8 9 10; do
    start=$(date +%s%N)
    ${CC:-cc} -std=c11 -I. -fsyntax-only "$1" || return
    took=$((($(date +%s%N) - start) / 100000))
    [ $took -ge $best ] || best=$took
  done
  echo $best
}
printf 'int main(void) { return 0; }\n' > "$work/empty.c"
printf '#include "ojo.h"\nint main(void) { return 0; }\n' > "$work/included.c"
case $(date +%N) in
*[!0-9]* | '') echo "note: the public half has $lines lines" ;;
*)
  without=$(milliseconds "$work/empty.c") with=$(milliseconds "$work/included.c")
  more=$((with - without))
  echo "note: the public half has $lines lines; ${CC:-cc} -fsyntax-only takes $((with / 10)).$((with % 10)) ms with it," \
    "$((without / 10)).$((without % 10)) ms without: $((more / 10)).$((more % 10)) ms more"
  if [ $more -lt 1000 ]; then pass; else fail "including ojo.h costs less than 100 ms"; fi
  ;;
esac

# ---- the sources' form

check "headers, tools and examples hold no tabs or trailing blanks" sh -c \
  '! grep -nE "	|[ ]+$" ojo.h ojo_reader.h ojo_bpf.h tools/*.[ch] examples/*.c tests/*.[ch] tests/*/*.c 2>/dev/null'

check "nothing is left to do in the sources" sh -c \
  '! grep -nEw "TO''DO|FIX''ME|X''XX" ojo.h ojo_reader.h ojo_bpf.h Makefile README.md tools/* examples/* tests/*.* 2>/dev/null'

if [ $skipped = 0 ]; then echo "compile: $passed passed, $failed failed"
else echo "compile: $passed passed, $failed failed, $skipped skipped"; fi
[ $failed = 0 ]
