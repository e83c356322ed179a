/* SPDX-License-Identifier: MIT
 *
 * spdlog.h - spdlog's asynchronous file logger as a rival; spdlog_logger.cc is what C++ it needs
 */
#ifndef SPDLOG_RIVAL_H
#define SPDLOG_RIVAL_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
int spdlog_open(const char *dir); /* 0, or -1: no such library, or no file */
void spdlog_record(uint64_t time, uint32_t flow, uint32_t type, uint64_t payload);
void spdlog_rest(void);           /* waits until the queue is empty */
uint64_t spdlog_lost(void);       /* overrun in the queue, so far */
uint64_t spdlog_close(void);      /* the same, in the end */
#ifdef __cplusplus
}
#endif
#endif
