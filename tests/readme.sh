#!/bin/sh
# SPDX-License-Identifier: MIT
# Takes every code block out of README.md and of the headers' doc blocks, compiles it, and runs it where it
# can be run, in one directory, in the order of the document, as a reader would.
#
# README.md:  ```c, ```cpp   a first line /* NAME */ or // NAME saves it as NAME. With main() it is compiled
#                            as a program, with the library blocks before it left aside; else as a part
#                            (ojo.h is included for it if it does not do that itself).
#             ```python      saved by its first line, # NAME, and run by an sh block.
#             ```sh          run; `make` only as make -n, so that a test run does not start itself.
#             ```console     lines "$ COMMAND" are run, and must print what follows; a line "..." stands
#                            for any number of lines.
#             <!-- not run: REASON --> before a block: it is left out, and counted as passed only if the
#                            reason is given.
# Headers:    what is indented by 7 or more under EXAMPLE, and the line after "C++11:".
set -u
cd "$(dirname "$0")/.." || exit 1
root=$(pwd)
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
work=$BUILD/tests/tmp/readme.$$
mkdir -p "$work/blocks" "$work/run" "$work/bin" "$BUILD"
trap 'rm -rf "$work"' EXIT
cc=${CC:-cc}
strict='-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror'
passed=0 failed=0 skipped=0
pass() { passed=$((passed + 1)); }
fail() {
  failed=$((failed + 1))
  echo "FAILED: $1"
  [ $# -lt 2 ] || head -n 20 "$2"
}
skip() {
  skipped=$((skipped + 1))
  echo "skip: $1: $2"
}
have() { command -v "$1" >/dev/null 2>&1; }

# The reader's directory looks like the project's, with the build's programs.
for file in ojo.h ojo_reader.h ojo_bpf.h Makefile tools examples tests; do
  [ ! -e "$file" ] || ln -s "$root/$file" "$work/run/$file"
done
ln -s "$BUILD" "$work/run/build"
cat > "$work/bin/make" <<E
#!/bin/sh
exec "$(command -v make)" --no-print-directory -n -C "$root" "\$@" > /dev/null
E
printf '#!/bin/sh\nexec %s "$@"\n' "$(command -v ${cc%% *})" > "$work/bin/cc"
chmod +x "$work/bin/make" "$work/bin/cc"

awk -v dir="$work/blocks" '
  /^```[a-z]+$/ && !inside {
    inside = 1; n++; language = substr($0, 4)
    file = sprintf("%s/%02d.%s", dir, n, language)
    printf "" > file
    if (reason != "") print reason > (file ".reason")
    print NR + 1 > (file ".line")
    next
  }
  /^```$/ { inside = 0; reason = ""; close(file); next }
  inside { print > file; next }
  /^<!-- not run: .* -->$/ { reason = substr($0, 15); next }
  /[^ ]/ { reason = "" }
' README.md

name_of() { # the NAME in a block's first line
  sed -n '1{s|^/\* \([A-Za-z0-9_.]*\.[a-z]*\) \*/$|\1|p;s|^// \([A-Za-z0-9_.]*\.[a-z]*\)$|\1|p;s|^# \([A-Za-z0-9_.]*\.[a-z]*\)$|\1|p;}' "$1"
}

compile() { # compile BLOCK LABEL COMPILER STANDARD EXTENSION
  block=$1 label=$2 compiler=$3 standard=$4 extension=$5
  name=$(name_of "$block")
  file=$work/run/${name:-block_$(basename "$block").$extension}
  cp "$block" "$file"
  case $name in *.h)
    if $compiler -std=$standard $strict -fsyntax-only -x c "$file" > "$work/output" 2>&1; then pass; else fail "$label" "$work/output"; fi
    return ;;
  esac
  if grep -q 'main(' "$block"; then
    if $compiler -std=$standard $strict -I"$root" -I"$work/run" -o "$work/program" "$file" -pthread > "$work/output" 2>&1; then pass
    else fail "$label: does not compile" "$work/output"; return; fi
    rm -rf "$work/traced"
    if (cd "$work" && OJO_DIR=traced ./program > output 2>&1 && build_cat traced | grep -q PACKET_SENT) &&
      (cd "$work" && env -u OJO_DIR ./program > output 2>&1 && [ ! -s output ]); then pass
    else fail "$label: does not run, or records nothing" "$work/output"; fi
  else
    grep -q '#include "ojo.h"' "$block" || { printf '#include "ojo.h"\n' | cat - "$block" > "$file.full.$extension"; file=$file.full.$extension; }
    if $compiler -std=$standard $strict -Wno-unused-function -I"$root" -I"$work/run" -c -o "$work/part.o" "$file" > "$work/output" 2>&1; then pass
    else fail "$label: does not compile" "$work/output"; fi
  fi
}
build_cat() { "$work/run/build/ojo-cat" -f csv "$@"; }

console() { # console BLOCK LABEL: runs each command and compares
  awk -v dir="$work" '/^\$ / { n++; print substr($0, 3) > (dir "/command." n); printf "" > (dir "/want." n); next }
    n { print > (dir "/want." n) }' "$1"
  i=1
  while [ -f "$work/command.$i" ]; do
    (cd "$work/run" && TZ=UTC COLUMNS=100 PATH="$work/bin:$PATH" sh -e "$work/command.$i") > "$work/got" 2>&1 < /dev/null
    if awk -v want="$work/want.$i" '
      BEGIN { while ((getline line < want) > 0) { sub(/ +$/, "", line); w[++m] = line } }
      { sub(/ +$/, ""); g[++k] = $0 }
      END {
        i = j = 1
        while (i <= m) {
          if (w[i] == "...") { if (++i > m) exit 0; while (j <= k && g[j] != w[i]) j++; if (j > k) exit 1 }
          else if (j > k || g[j] != w[i]) exit 1
          else { i++; j++ }
        }
        exit j <= k
      }' "$work/got"; then pass
    else
      diff "$work/want.$i" "$work/got" > "$work/output"
      fail "$2: \$ $(cat "$work/command.$i")" "$work/output"
    fi
    rm -f "$work/command.$i" "$work/want.$i"
    i=$((i + 1))
  done
}

blocks=0
for block in "$work"/blocks/*; do
  case $block in *.reason | *.line) continue ;; esac
  blocks=$((blocks + 1))
  language=${block##*.}
  label="README.md:$(cat "$block.line") ($language)"
  if [ -f "$block.reason" ]; then pass; continue; fi
  case $language in
  c) compile "$block" "$label" "$cc" c11 c ;;
  cpp)
    found=
    for compiler in g++ clang++; do
      echo 'int main() {}' > "$work/probe.cc"
      if have $compiler && $compiler -o "$work/probe" "$work/probe.cc" 2>/dev/null; then
        found=y
        compile "$block" "$label" $compiler c++11 cc
      fi
    done
    [ -n "$found" ] || skip "$label" "no C++ compiler" ;;
  python)
    cp "$block" "$work/run/$(name_of "$block")" || fail "$label has no name"
    pass ;;
  sh)
    if grep -q python3 "$block" && ! have python3; then skip "$label" "no python3"; continue; fi
    if (cd "$work/run" && PATH="$work/bin:$PATH" sh -eu "$block") > "$work/output" 2>&1 < /dev/null; then pass
    else fail "$label: exit code $?" "$work/output"; fi ;;
  console) console "$block" "$label" ;;
  text | csv | json) ;; # output alone: not run
  *) fail "$label: no rule for this language" ;;
  esac
done
if [ $blocks -ge 10 ]; then pass; else fail "README.md has only $blocks blocks"; fi

# The Python reader tells the same as ojo-cat.
if have python3 && [ -f "$work/run/read.py" ] && [ -d "$work/run/traces" ]; then
  (cd "$work/run" && python3 read.py traces) > "$work/python" 2>&1
  "$work/run/build/ojo-cat" -f csv "$work/run/traces" | sed 1d | cut -d, -f1,2,3,6 | tr ',' ' ' > "$work/csv"
  python3 - "$work/python" "$work/csv" > "$work/output" 2>&1 <<'E'
import sys
rows = [line.split() for line in open(sys.argv[1])]
mine = [[r[0], r[1], str(int(r[2], 16)), r[3]] for r in rows if r[2] not in ("0xff02", "0xff03")]
theirs = [line.split() for line in open(sys.argv[2])]
assert mine and sorted(mine) == sorted(theirs), (mine, theirs)
E
  if [ $? = 0 ]; then pass; else fail "read.py and ojo-cat agree" "$work/output"; fi
elif have python3; then fail "read.py had no trace to read"
else skip "read.py" "no python3"; fi

# ---- the headers' examples

example() { # example HEADER: the code under EXAMPLE, as it stands
  sed -n '/^ \* EXAMPLE/,/^ \* [A-Z]\|^ \*$\|^ \*\//{/^ \*       /s/^ \*       //p;}' "$1"
}
mkdir -p "$work/header"
{
  printf '#define OJO_IMPLEMENTATION\n#include "ojo.h"\n#include <stdlib.h>\nint main(void) {\n'
  example ojo.h
  printf 'return 0;\n}\n'
} > "$work/header/ojo.c"
if [ "$(example ojo.h | wc -l)" -ge 4 ]; then pass; else fail "ojo.h has an EXAMPLE"; fi
if $cc -std=c11 $strict -I. -o "$work/header/ojo" "$work/header/ojo.c" -pthread > "$work/output" 2>&1 &&
  OJO_DIR="$work/header/traces" "$work/header/ojo" > "$work/output" 2>&1; then pass
else fail "ojo.h: EXAMPLE compiles and runs" "$work/output"; fi
build_cat "$work/header/traces" > "$work/output" 2>&1
if grep -q PACKET_ACKED "$work/output"; then pass; else fail "ojo.h: EXAMPLE records" "$work/output"; fi

line=$(sed -n 's/^ \*.*C++11: *//p' ojo.h | head -n 1)
printf '#define OJO_IMPLEMENTATION\n#include "ojo.h"\nint main() {\nojo_tracer *t;\n%s\nreturn ojo_close(t);\n}\n' "$line" > "$work/header/line.cc"
if [ -z "$line" ]; then fail "ojo.h tells how to open from C++11"
elif have g++; then
  if g++ -std=c++11 $strict -I. -o "$work/header/line" "$work/header/line.cc" -pthread > "$work/output" 2>&1 &&
    (cd "$work/header" && ./line); then pass
  else fail "ojo.h: $line" "$work/output"; fi
else skip "ojo.h, C++11 line" "no g++"; fi

{
  printf '#define OJO_READER_IMPLEMENTATION\n#include "ojo_reader.h"\n#include <inttypes.h>\n#include <stdio.h>\nint main(void) {\n'
  example ojo_reader.h
  printf 'return 0;\n}\n'
} > "$work/header/reader.c"
if $cc -std=c11 $strict -I. -o "$work/header/reader" "$work/header/reader.c" -pthread > "$work/output" 2>&1 &&
  (cd "$work/header" && ./reader) > "$work/output" 2>&1 && grep -q 'PACKET_ACKED 0$' "$work/output"; then pass
else fail "ojo_reader.h: EXAMPLE compiles, runs and reads" "$work/output"; fi

# What other headings show must at least be what is there.
for heading in "DO THIS"; do
  for header in ojo.h ojo_reader.h; do
    if sed -n "/^ \* $heading/,/^ \*\$/p" $header | grep -q "#include \"$header\""; then pass; else fail "$header: $heading includes it"; fi
  done
done

# No placeholder is left.
if grep -n '@@' README.md > "$work/output"; then fail "README.md is whole" "$work/output"; else pass; fi

if [ $skipped = 0 ]; then echo "readme: $passed passed, $failed failed"
else echo "readme: $passed passed, $failed failed, $skipped skipped"; fi
[ $failed = 0 ]
