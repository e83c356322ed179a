/* SPDX-License-Identifier: MIT
 *
 * mutate.h - what the fuzzing harness and its mutator agree on: how an input is laid out. The mutator
 * knows the file format by its description alone, and shares no code with ojo.h.
 *
 *   memory, file     8 bytes of choices, then a trace file
 *   directory, cat   8 bytes of choices, then parts: u8 name (see fuzz.c), u24 length, the file's bytes
 *   recover          8 bytes of choices, then patches of 16 bytes to a dead tracer's pool: u8 kind,
 *                    u8 which, u16 where, u32 more, u64 value (see fuzz.c)
 */
#ifndef OJO_TESTS_FUZZ_MUTATE_H
#define OJO_TESTS_FUZZ_MUTATE_H

#include <stddef.h>
#include <stdint.h>

#define FUZZ_CHOICES 8u
#define FUZZ_PART_HEAD 4u
#define FUZZ_NAMES 8u
#define FUZZ_PATCH 16u
#define FUZZ_PATCH_KINDS 8u

typedef enum fuzz_layout { FUZZ_FILE, FUZZ_PARTS, FUZZ_PATCHES } fuzz_layout;

/* A general mutation of bytes in place, as LLVMFuzzerMutate: returns the new size, at most `room`. */
typedef size_t (*fuzz_general)(uint8_t *data, size_t size, size_t room);

/* Mutates an input in place; returns its new size, at most `room`. */
size_t fuzz_mutate(fuzz_layout layout, uint8_t *data, size_t size, size_t room, uint64_t seed,
                   fuzz_general general);

#endif
