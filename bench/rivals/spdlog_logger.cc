/* SPDX-License-Identifier: MIT
 *
 * spdlog_logger.cc - spdlog's asynchronous logger with a file; without the library all of it fails
 *
 * The queue has room for 131,072 messages, which is more than a turn of the benchmark, and overruns the oldest when it
 * is full: a logger that makes its caller wait would cost no CPU time meanwhile, and look the better for it.
 */
#include "spdlog.h"

#if defined(__has_include)
#if __has_include(<spdlog/async.h>)
#define HAVE_SPDLOG 1
#endif
#endif

#ifdef HAVE_SPDLOG
#include <spdlog/async.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>

static std::shared_ptr<spdlog::details::thread_pool> pool;
static std::shared_ptr<spdlog::async_logger> logger;

int spdlog_open(const char *dir) try {
  std::string path = std::string(dir) + "/spdlog." + std::to_string(getpid());
  pool = std::make_shared<spdlog::details::thread_pool>(131072, 1);
  logger = std::make_shared<spdlog::async_logger>("bench", std::make_shared<spdlog::sinks::basic_file_sink_mt>(path),
                                                  pool, spdlog::async_overflow_policy::overrun_oldest);
  logger->set_pattern("%E%F %v"); /* its own time, in ns, as short as it gets */
  return 0;
} catch (const std::exception &) {
  return -1;
}
void spdlog_record(uint64_t time, uint32_t flow, uint32_t type, uint64_t payload) {
  logger->info("{} {} {} {}", time, flow, type, payload);
}
void spdlog_rest() {
  while (pool->queue_size()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}
uint64_t spdlog_lost() { return pool->overrun_counter(); }
uint64_t spdlog_close() {
  uint64_t lost = spdlog_lost();
  logger->flush();
  logger.reset();
  pool.reset(); /* writes what is queued, and joins its thread */
  return lost;
}
#else
int spdlog_open(const char *) { return -1; }
void spdlog_record(uint64_t, uint32_t, uint32_t, uint64_t) {}
void spdlog_rest() {}
uint64_t spdlog_lost() { return 0; }
uint64_t spdlog_close() { return 0; }
#endif
