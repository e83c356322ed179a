#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes the inputs from which the corpus was grown: tests/golden/ and the files of cat_make, with choices
# that reach each way of reading.
#
#   tests/fuzz/seeds.sh FUZZ CAT_MAKE DIR     FUZZ: the plain program; writes DIR/TARGET/seed_N
set -eu
fuzz=$1 make=$2 out=$3
golden=$(dirname "$0")/../golden
mkdir -p "$out/files"
"$make" "$out/files"
n=0

pack() { # pack TARGET CHOICES FILE...
  n=$((n + 1))
  mkdir -p "$out/$1"
  seed=$out/$1/seed_$n
  target=$1 choices=$2
  shift 2
  OJO_FUZZ_TARGET=$target "$fuzz" --pack "$seed" "$choices" "$@"
}

f=$out/files
v1=$(find "$f/v1/raw" -name '*.bin' | sort | head -n 1)
json=$(find "$f/v1/schema" -name '*.json' | sort | head -n 1)
story=$(find "$f/story" -name '*.bin' | sort)
for file in "$golden/corners.bin" "$golden/example.bin" "$f/hostile.bin" "$f/meanings.bin" "$f/numbers.bin" \
  "$f/late.bin" "$f/near.bin" "$v1" $story; do
  pack memory 0700000000000000 "$file"
  pack memory 2901020300000000 "$file"
  pack memory 1700000020000000 "$file"
  pack memory 8b00050000000000 "$file"
  pack memory 0f50020000000000 "$file"
  pack memory 0f66020000000000 "$file"
  pack file 0f03040000000000 "$file"
  pack file 200d000300000070 "$file"
  for filter in 00 01 02 03 04 05 06 07; do
    pack directory 0b${filter}020000000000 "0:$file"
    pack cat 00${filter}000000000000 "0:$file"
    pack cat 01${filter}010000000000 "0:$file"
  done
  pack cat 2a00010100000000 "0:$file"
  pack cat 1203010400000000 "0:$file"
done
set --
i=0
for file in $story; do
  set -- "$@" "$i:$file"
  i=$((i + 1))
done
pack directory 4f07000000000000 "$@" "6:$f/late.bin"
pack directory 8f00000000000000 "$@"
pack directory 0f07000000000000 "0:$f/near.bin" "1:$f/far.bin"
pack directory 0f04000000000000 "3:$v1" "5:$json"
pack directory 4f00000000000000 "7:$0" "0:$f/near.bin"
for mode in 00 01 02 03 04 05 06 07; do
  pack cat 20${mode}050200000000 "$@"
  pack cat 00${mode}010000000000 "0:$f/near.bin" "1:$f/far.bin"
  pack cat 0a${mode}000100000000 "3:$v1" "5:$json"
  pack cat 80${mode}010000000000 "$@"
done
pack recover 0000000000000000 /dev/null
