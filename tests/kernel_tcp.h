/* SPDX-License-Identifier: MIT
 *
 * kernel_tcp.h - the TCP load of the kernel tests: connections of random known sizes between processes that write
 * down, in shared memory, what each end did: bytes, addresses, cookie, pid, command, and the kernel's packet counts.
 * Nothing of ojo_bpf.h. After kernel_net.h.
 */
#ifndef OJO_TESTS_KERNEL_TCP_H
#define OJO_TESTS_KERNEL_TCP_H

#include <sys/sendfile.h>
#include <sys/uio.h>

/* How a connection ends. */
#define WAYS(X)                                                             \
  X(CLIENT_FIN, "the client closes")                                        \
  X(SERVER_FIN, "the server closes")                                        \
  X(HALF, "the client half-closes, the server then answers")                \
  X(BOTH, "both shut down at once")                                         \
  X(CLIENT_RESET, "the client resets (linger 0)")                           \
  X(SERVER_RESET, "the server resets (linger 0)")                           \
  X(EXIT, "the client's process ends without a close")                      \
  X(UNREAD, "the client closes with data unread")                           \
  X(SILENT, "nothing was sent or received")
enum way {
#define X(name, text) WAY_##name,
  WAYS(X)
#undef X
  WAY_COUNT
};
static const char *const way_texts[] = {
#define X(name, text) text,
  WAYS(X)
#undef X
};

/* Who serves a connection: a thread of one process, or a process forked for it. */
enum { BY_THREAD, BY_FORK };
static const char *const tcp_commands[SIDES][2] = {{"kt-ct", "kt-cf"}, {"kt-st", "kt-sf"}};

struct tcp_end { /* what the program knows of its end; final once `done` */
  uint64_t cookie;
  uint64_t out;               /* bytes that the kernel took: the sum of what send returned */
  uint64_t in;                /* bytes that arrived, in order: read, or left unread */
  uint64_t got;               /* bytes that the program read */
  uint64_t packets_out, packets_in; /* tcpi_segs_out, tcpi_segs_in */
  uint32_t pid;
  uint32_t done;
  uint16_t local_port, remote_port;
  uint8_t address_bytes, local[16], remote[16];
  bool final;                 /* the packets were read after the change to CLOSE: nothing comes after */
  bool resets;                /* this end closes with a reset, and could read the packets only before it */
};
struct tcp_connection {
  uint8_t way, family; /* family: 0 v4, 1 v6 */
  uint8_t by[SIDES];
  uint64_t bytes[SIDES]; /* to send */
  uint32_t published, taken;
  uint32_t step[SIDES];
  struct tcp_end ends[SIDES];
};
struct tcp_load {
  uint64_t seed;
  uint32_t count, go, listening, next;
  uint16_t ports[2][2]; /* [by][family] */
  pid_t processes[4];
  struct tcp_connection c[];
};

/* Sizes from 1 byte to about 1 MB, all magnitudes alike. */
static inline uint64_t tcp_size(uint64_t *random, unsigned magnitude) {
  unsigned bits = (unsigned)(check_random(random) % magnitude);
  return (UINT64_C(1) << bits) + check_random(random) % (UINT64_C(1) << bits);
}
static inline struct tcp_load *tcp_load_new(uint32_t count, uint64_t seed) {
  struct tcp_load *load = (struct tcp_load *)shared(sizeof *load + count * sizeof *load->c);
  uint64_t random = seed;
  load->seed = seed;
  load->count = count;
  for (uint32_t i = 0; i < count; i++) {
    struct tcp_connection *c = &load->c[i];
    c->way = (uint8_t)(i % WAY_COUNT);
    uint32_t k = i / WAY_COUNT; /* every way with every combination of the rest */
    c->by[CLIENT] = c->way == WAY_EXIT ? BY_FORK : k & 1;
    c->by[SERVER] = c->way == WAY_SILENT ? BY_THREAD : k >> 1 & 1;
    c->family = k >> 2 & 1;
    /* What stays unread must fit into the receive buffer. */
    for (int side = 0; side < SIDES; side++) c->bytes[side] = tcp_size(&random, c->way == WAY_UNREAD ? 15 : 20);
    if (check_random(&random) % 8 == 0 && c->way != WAY_UNREAD) c->bytes[SERVER] = 0;
    if (c->way == WAY_UNREAD) c->bytes[SERVER]++;
    if (c->way == WAY_SILENT) c->bytes[CLIENT] = c->bytes[SERVER] = 0;
  }
  return load;
}

/* ---- sending and receiving, in many ways -------------------------------------------------------- */

static int tcp_file = -1; /* zeros, for sendfile; opened before any fork */
static const char tcp_zeros[65536];

static inline ssize_t tcp_send_some(int fd, size_t bytes, uint64_t choice) {
  struct iovec parts[2] = {{(void *)(uintptr_t)tcp_zeros, bytes / 3},
                           {(void *)(uintptr_t)tcp_zeros, bytes - bytes / 3}};
  struct msghdr message;
  off_t at = 0;
  memset(&message, 0, sizeof message);
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  switch (choice % 5) {
  case 0: return send(fd, tcp_zeros, bytes, MSG_NOSIGNAL);
  case 1: return write(fd, tcp_zeros, bytes);
  case 2: return writev(fd, parts, 2);
  case 3: return sendmsg(fd, &message, MSG_NOSIGNAL);
  default: return sendfile(fd, tcp_file, &at, bytes);
  }
}
static inline void tcp_send(int fd, uint64_t bytes, struct tcp_end *end, uint64_t *random) {
  while (bytes) {
    uint64_t some = tcp_size(random, 16);
    if (some > bytes) some = bytes;
    ssize_t sent = tcp_send_some(fd, (size_t)some, check_random(random));
    if (sent <= 0) give_up("send of %llu bytes gave %zd", (unsigned long long)some, sent);
    end->out += (uint64_t)sent;
    bytes -= (uint64_t)sent;
  }
}
static inline ssize_t tcp_receive_some(int fd, size_t bytes, uint64_t choice) {
  static __thread char buffer[65536];
  struct iovec parts[2] = {{buffer, bytes / 2}, {buffer + bytes / 2, bytes - bytes / 2}};
  struct msghdr message;
  memset(&message, 0, sizeof message);
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  switch (choice % 5) {
  case 0: return recv(fd, buffer, bytes, 0);
  case 1: return read(fd, buffer, bytes);
  case 2: return readv(fd, parts, 2);
  case 3: return recvmsg(fd, &message, 0);
  default:
    if (recv(fd, buffer, bytes, MSG_PEEK) < 0) return -1; /* must not count */
    return recv(fd, buffer, bytes, 0);
  }
}
/* Reads so many bytes, or with UINT64_MAX up to the end. Whatever comes instead of data ends it. */
static inline void tcp_receive(int fd, uint64_t bytes, struct tcp_end *end, uint64_t *random) {
  while (bytes) {
    uint64_t some = tcp_size(random, 16);
    ssize_t got = tcp_receive_some(fd, (size_t)(some < bytes ? some : bytes), check_random(random));
    if (got <= 0) break;
    end->got += (uint64_t)got;
    if (bytes != UINT64_MAX) bytes -= (uint64_t)got;
  }
}

/* ---- one end ------------------------------------------------------------------------------------ */

static inline void tcp_describe(struct tcp_end *end, int fd) {
  address local = name_of(fd, false), remote = name_of(fd, true);
  end->cookie = cookie_of(fd);
  end->pid = (uint32_t)getpid();
  end->local_port = address_port(&local);
  end->remote_port = address_port(&remote);
  end->address_bytes = address_raw(&local, end->local);
  address_raw(&remote, end->remote);
}
/* The packets so far, once all that was sent is acknowledged. */
static inline void tcp_count_packets(struct tcp_end *end, int fd) {
  struct tcp_info info = info_of(fd);
  for (int i = 0; i < 400 && info.tcpi_unacked; i++, info = info_of(fd)) nap_us(500);
  end->packets_out = info.tcpi_segs_out;
  end->packets_in = info.tcpi_segs_in;
}
/* A socket that was not closed but shut down keeps its counters when the kernel is through with the connection: read
 * in state CLOSE they are the last ones, to be met exactly. */
static inline void tcp_finish(struct tcp_end *end, int fd, bool shut) {
  if (shut) shutdown(fd, SHUT_WR);
  for (int i = 0; i < 4000 && info_of(fd).tcpi_state != STATE_CLOSE; i++) nap_us(500);
  struct tcp_info info = info_of(fd);
  end->final = info.tcpi_state == STATE_CLOSE;
  end->packets_out = info.tcpi_segs_out;
  end->packets_in = info.tcpi_segs_in;
  close(fd);
}
static inline void tcp_meet(struct tcp_connection *c, int side, uint32_t step) {
  word_store(&c->step[side], step);
  word_wait(&c->step[!side], step);
}
static inline void tcp_move(struct tcp_connection *c, int side, int fd, uint64_t *random) {
  struct tcp_end *end = &c->ends[side];
  if (side == CLIENT) {
    tcp_send(fd, c->bytes[CLIENT], end, random);
    if (c->way == WAY_HALF) shutdown(fd, SHUT_WR);
    tcp_receive(fd, c->way == WAY_UNREAD ? c->bytes[SERVER] / 2 : c->bytes[SERVER], end, random);
  } else {
    tcp_receive(fd, c->way == WAY_HALF ? UINT64_MAX : c->bytes[CLIENT], end, random);
    tcp_send(fd, c->bytes[SERVER], end, random);
  }
  end->in = end->got;
  if (c->way == WAY_UNREAD && side == CLIENT) {
    int queued = 0;
    for (int i = 0; i < 4000 && end->got + (uint64_t)queued < c->bytes[SERVER]; i++, nap_us(500))
      ioctl(fd, FIONREAD, &queued);
    end->in += (uint64_t)queued;
  }
}
static inline void tcp_end_run(struct tcp_load *load, struct tcp_connection *c, int side, int fd) {
  uint64_t random = load->seed ^ (uint64_t)(c - load->c) * 2 ^ (uint64_t)side << 63;
  struct tcp_end *end = &c->ends[side];
  int closer = c->way == WAY_SERVER_FIN || c->way == WAY_SERVER_RESET ? SERVER : CLIENT;
  bool together = c->way == WAY_HALF || c->way == WAY_BOTH;
  tcp_describe(end, fd);
  if (side == CLIENT) word_store(&c->published, 1);
  if (c->way != WAY_SILENT) tcp_move(c, side, fd, &random);
  tcp_meet(c, side, 1);
  if (side == closer && !together) {
    if (c->way == WAY_CLIENT_RESET || c->way == WAY_SERVER_RESET) reset_on_close(fd);
    end->resets = c->way == WAY_CLIENT_RESET || c->way == WAY_SERVER_RESET || c->way == WAY_UNREAD;
    tcp_count_packets(end, fd);
    if (c->way != WAY_EXIT) close(fd);
  } else {
    if (c->way == WAY_BOTH) shutdown(fd, SHUT_WR);
    if (c->way == WAY_SILENT) {
      struct pollfd wait = {fd, POLLRDHUP, 0};
      poll(&wait, 1, 25000);
    } else {
      tcp_receive(fd, UINT64_MAX, end, &random); /* to the end, or the reset */
    }
    tcp_finish(end, fd, true);
  }
  word_store(&end->done, 1);
}

/* ---- the processes ------------------------------------------------------------------------------ */

struct tcp_job {
  struct tcp_load *load;
  struct tcp_connection *c;
  int fd;
};
static inline int tcp_connect(struct tcp_load *load, struct tcp_connection *c) {
  return connected(c->family ? AF_INET6 : AF_INET, SOCK_STREAM, load->ports[c->by[SERVER]][c->family]);
}
static void *tcp_client_thread(void *argument) {
  struct tcp_load *load = (struct tcp_load *)argument;
  for (uint32_t i; (i = word_add(&load->next, 1)) < load->count;)
    if (load->c[i].by[CLIENT] == BY_THREAD) tcp_end_run(load, &load->c[i], CLIENT, tcp_connect(load, &load->c[i]));
  return NULL;
}
static inline void tcp_clients_by_thread(struct tcp_load *load) {
  pthread_t threads[8];
  for (int i = 0; i < 8; i++)
    if (pthread_create(&threads[i], NULL, tcp_client_thread, load)) give_up("pthread_create");
  for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
}
static inline void tcp_clients_by_fork(struct tcp_load *load) {
  unsigned running = 0;
  int status, bad = 0;
  for (uint32_t i = 0; i < load->count; i++) {
    if (load->c[i].by[CLIENT] != BY_FORK) continue;
    if (running == 8 && wait(&status) > 0) running--, bad |= status;
    if (fork_named(tcp_commands[CLIENT][BY_FORK]) == 0) {
      tcp_end_run(load, &load->c[i], CLIENT, tcp_connect(load, &load->c[i]));
      _exit(0); /* WAY_EXIT: with the socket open */
    }
    running++;
  }
  for (; running && wait(&status) > 0; running--) bad |= status;
  if (bad) _exit(71);
}

static void *tcp_server_thread(void *argument) {
  struct tcp_job *job = (struct tcp_job *)argument;
  tcp_end_run(job->load, job->c, SERVER, job->fd);
  return NULL;
}
/* Whose connection was accepted: the client that wrote down this port, and that nobody took before. */
static inline struct tcp_connection *tcp_taken(struct tcp_load *load, int by, int family, uint16_t port) {
  for (int tries = 0; tries < 40000; tries++, nap_us(250))
    for (uint32_t i = 0; i < load->count; i++) {
      struct tcp_connection *c = &load->c[i];
      if (c->by[SERVER] == by && c->family == family && word_load(&c->published) && !c->taken &&
          c->ends[CLIENT].local_port == port) {
        c->taken = 1;
        return c;
      }
    }
  give_up("nobody connected from port %u", port);
}
static inline void tcp_serve(struct tcp_load *load, int by) {
  struct pollfd wait_for[2] = {{-1, POLLIN, 0}, {-1, POLLIN, 0}};
  uint32_t left = 0, threads = 0;
  pthread_t *thread = (pthread_t *)calloc(load->count, sizeof *thread);
  struct tcp_job *jobs = (struct tcp_job *)calloc(load->count, sizeof *jobs);
  if (!thread || !jobs) give_up("calloc");
  for (int family = 0; family < 2; family++)
    wait_for[family].fd = bound(family ? AF_INET6 : AF_INET, SOCK_STREAM, &load->ports[by][family]);
  for (uint32_t i = 0; i < load->count; i++) left += load->c[i].by[SERVER] == by;
  word_add(&load->listening, 1);
  while (left) {
    if (poll(wait_for, 2, 25000) <= 0) give_up("%u connections did not come", left);
    for (int family = 0; family < 2; family++) {
      if (!wait_for[family].revents) continue;
      int fd = accept4(wait_for[family].fd, NULL, NULL, SOCK_CLOEXEC);
      if (fd < 0) give_up("accept");
      limit_waits(fd, 25);
      address remote = name_of(fd, true);
      struct tcp_connection *c = tcp_taken(load, by, family, address_port(&remote));
      left--;
      if (by == BY_FORK) {
        if (fork_named(tcp_commands[SERVER][BY_FORK]) == 0) {
          tcp_end_run(load, c, SERVER, fd);
          _exit(0);
        }
        close(fd);
      } else {
        struct tcp_job *job = &jobs[threads];
        job->load = load, job->c = c, job->fd = fd;
        if (pthread_create(&thread[threads++], NULL, tcp_server_thread, job)) give_up("pthread_create");
      }
    }
  }
  for (uint32_t i = 0; i < threads; i++) pthread_join(thread[i], NULL);
  int status, bad = 0;
  while (wait(&status) > 0) bad |= status;
  free(thread);
  free(jobs);
  if (bad) _exit(71);
}

/* Forks the four processes, which wait for tcp_load_go: forked before any probe, they inherit nothing of it. */
static inline void tcp_load_start(struct tcp_load *load) {
  tcp_file = memfd_create("zeros", MFD_CLOEXEC);
  if (tcp_file < 0 || ftruncate(tcp_file, 65536)) give_up("memfd_create");
  for (int side = 0; side < SIDES; side++)
    for (int by = 0; by < 2; by++) {
      pid_t pid = fork_named(tcp_commands[side][by]);
      if (pid) {
        load->processes[side * 2 + by] = pid; /* shared: the child must not write it */
        continue;
      }
      word_wait(&load->go, 1);
      if (side == SERVER) {
        tcp_serve(load, by);
      } else {
        word_wait(&load->listening, 2);
        if (by == BY_THREAD) tcp_clients_by_thread(load);
        else tcp_clients_by_fork(load);
      }
      _exit(0);
    }
}
static inline void tcp_load_go(struct tcp_load *load) { word_store(&load->go, 1); }
/* True while one of the four runs. */
static inline bool tcp_load_running(struct tcp_load *load) {
  for (int i = 0; i < 4; i++) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    if (waitid(P_PID, (id_t)load->processes[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0)
      return true;
  }
  return false;
}
static inline void tcp_load_end(struct tcp_load *load) {
  for (int i = 0; i < 4; i++) join_process(load->processes[i], "the TCP load");
  uint32_t done = 0;
  for (uint32_t i = 0; i < load->count; i++) done += load->c[i].ends[CLIENT].done + load->c[i].ends[SERVER].done;
  check(done == 2 * load->count, "TCP load: %u of %u ends are through", done, 2 * load->count);
}
#endif
