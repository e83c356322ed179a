/* SPDX-License-Identifier: MIT
 *
 * valid.h - are these bytes what they claim to be? Strict, and written from the specifications alone.
 * Each function returns NULL, or what is wrong, and then *at is where.
 */
#ifndef OJO_TESTS_FUZZ_VALID_H
#define OJO_TESTS_FUZZ_VALID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* RFC 8259: one value, with at most white space around it. Beyond it: nothing in a string that a terminal
 * or a script takes badly: DEL, C1 controls, U+2028, U+2029. *events: the members of the outermost
 * object's "events", or SIZE_MAX. */
const char *valid_json(const unsigned char *p, size_t length, size_t *at, size_t *events);
/* The same for one value a line. *lines: how many. */
const char *valid_ndjson(const unsigned char *p, size_t length, size_t *at, size_t *lines);
/* RFC 4180 with LF: the heading, then rows of eight fields, of which all but name, category and extension
 * are decimal numbers. UTF-8, no NUL; for a terminal no control character but line ends and tabs. */
const char *valid_csv(const unsigned char *p, size_t length, bool terminal, size_t *at, size_t *rows);
/* Lines for people: UTF-8, no control character, nothing that changes the direction of the writing;
 * with `colour` escape sequences that set colours. */
const char *valid_text(const unsigned char *p, size_t length, bool colour, size_t *at);

#endif
