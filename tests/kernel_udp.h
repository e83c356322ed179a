/* SPDX-License-Identifier: MIT
 *
 * kernel_udp.h - the UDP load of the kernel tests: many 4-tuples between two processes that write down, in shared
 * memory, what each socket did with each peer. Sockets are connected and not, send with and without GSO, receive with
 * and without GRO; some answer; one per family overflows. Nothing of ojo_bpf.h. After kernel_net.h.
 */
#ifndef OJO_TESTS_KERNEL_UDP_H
#define OJO_TESTS_KERNEL_UDP_H

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#define UDP_SENDERS 24   /* of each family; every second one is connected */
#define UDP_RECEIVERS 6  /* of each family; by index % 3: plain, with GRO, answering */
#define UDP_ROUNDS 10    /* of each sender to each of its peers */
#define UDP_OVERFLOW 400 /* datagrams to a socket that does not read */
#define UDP_FLOWS 1024

static const char *const udp_commands[SIDES] = {"kt-us", "kt-ur"};

struct udp_flow { /* what a socket did with a peer */
  uint64_t cookie, bytes_out, datagrams_out, bytes_in, datagrams_in; /* in: what the program got */
  uint32_t pid, socket;
  uint16_t local_port, remote_port;
  uint8_t address_bytes, local[16], remote[16];
};
struct udp_load {
  uint64_t seed, sent, answered; /* datagrams so far, of these two kinds */
  uint32_t go, receiving, sent_all, answered_all, count[SIDES];
  uint16_t ports[2][UDP_RECEIVERS + 1]; /* [family]; the last one is the socket that overflows */
  pid_t processes[SIDES];
  struct udp_flow flows[SIDES][UDP_FLOWS];
};
static inline bool udp_overflows(const struct udp_load *load, int family, uint16_t port) {
  return load->ports[family][UDP_RECEIVERS] == port;
}

/* The socket's flow with a peer, new if there is none. */
static inline struct udp_flow *udp_flow(struct udp_load *load, int side, int fd, const address *peer) {
  uint8_t remote[16], bytes = address_raw(peer, remote);
  uint16_t port = address_port(peer);
  for (uint32_t i = 0; i < load->count[side]; i++) {
    struct udp_flow *f = &load->flows[side][i];
    if (f->socket == (uint32_t)fd && f->remote_port == port && f->address_bytes == bytes &&
        !memcmp(f->remote, remote, 16))
      return f;
  }
  if (load->count[side] == UDP_FLOWS) give_up("more than %d UDP flows", UDP_FLOWS);
  struct udp_flow *f = &load->flows[side][load->count[side]++];
  address local = name_of(fd, false), here = loopback(peer->any.sa_family, 0);
  f->cookie = cookie_of(fd);
  f->pid = (uint32_t)getpid();
  f->socket = (uint32_t)fd;
  f->local_port = address_port(&local);
  f->remote_port = port;
  f->address_bytes = bytes;
  address_raw(&here, f->local); /* also of a socket bound to no address: that of its packets */
  memcpy(f->remote, remote, 16);
  return f;
}

/* ---- receiving ---------------------------------------------------------------------------------- */

/* One receive call; what came counts for its flow. False: there was nothing. */
static inline bool udp_receive(struct udp_load *load, int side, int fd, uint64_t *datagrams, size_t *length,
                               address *peer) {
  static char buffer[65536];
  union {
    char bytes[256];
    struct cmsghdr align;
  } control;
  struct iovec part = {buffer, sizeof buffer};
  struct msghdr message;
  memset(&message, 0, sizeof message);
  memset(peer, 0, sizeof *peer);
  message.msg_name = peer;
  message.msg_namelen = sizeof *peer;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = sizeof control;
  ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);
  if (got < 0) return false;
  *datagrams = 1;
  *length = (size_t)got;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    int segment = 0;
    if (c->cmsg_level != SOL_UDP || c->cmsg_type != UDP_GRO) continue;
    memcpy(&segment, CMSG_DATA(c), sizeof segment);
    if (segment > 0) *datagrams = ((uint64_t)got + (uint64_t)segment - 1) / (uint64_t)segment;
  }
  struct udp_flow *f = udp_flow(load, side, fd, peer);
  f->bytes_in += (uint64_t)got;
  f->datagrams_in += *datagrams;
  return true;
}
static inline void udp_answer(struct udp_load *load, int fd, size_t length, const address *peer) {
  ssize_t sent = sendto(fd, tcp_zeros, length / 2, 0, &peer->any, address_length(peer));
  if (sent < 0) give_up("an answer of %zu bytes", length / 2);
  struct udp_flow *f = udp_flow(load, SERVER, fd, peer);
  f->bytes_out += (uint64_t)sent;
  f->datagrams_out++;
  __atomic_fetch_add(&load->answered, 1, __ATOMIC_RELAXED);
}
static inline void udp_serve(struct udp_load *load) {
  struct pollfd sockets[2 * UDP_RECEIVERS], full[2];
  int one = 1, large = 16 << 20, small = 4096;
  uint64_t got = 0, datagrams, deadline;
  size_t length;
  address peer;
  for (int i = 0; i < 2 * (UDP_RECEIVERS + 1); i++) {
    int family = i & 1, index = i >> 1,
        fd = bound(family ? AF_INET6 : AF_INET, SOCK_DGRAM, &load->ports[family][index]);
    struct pollfd wait = {fd, POLLIN, 0};
    setsockopt(fd, SOL_SOCKET, index == UDP_RECEIVERS ? SO_RCVBUF : SO_RCVBUFFORCE,
               index == UDP_RECEIVERS ? &small : &large, sizeof large);
    if (index % 3 == 1) setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof one);
    if (index == UDP_RECEIVERS) full[family] = wait;
    else sockets[i] = wait;
  }
  word_store(&load->receiving, 1);
  for (deadline = now_ns() + UINT64_C(25000000000); now_ns() < deadline;) {
    if (word_load(&load->sent_all) && got >= __atomic_load_n(&load->sent, __ATOMIC_ACQUIRE)) break;
    poll(sockets, 2 * UDP_RECEIVERS, 20);
    for (int i = 0; i < 2 * UDP_RECEIVERS; i++)
      while (udp_receive(load, SERVER, sockets[i].fd, &datagrams, &length, &peer)) {
        got += datagrams;
        if ((i >> 1) % 3 == 2) udp_answer(load, sockets[i].fd, length, &peer);
      }
  }
  nap_us(50000); /* what was sent may still be on its way up in a softirq */
  for (int i = 0; i < 2; i++)
    while (udp_receive(load, SERVER, full[i].fd, &datagrams, &length, &peer)) {
    }
  word_store(&load->answered_all, 1);
}

/* ---- sending ------------------------------------------------------------------------------------ */

/* One send call to `peer` (NULL: connected); how many datagrams it made. */
static inline uint64_t udp_send_segments(int fd, const address *peer, size_t bytes, uint16_t segment) {
  union {
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr align;
  } control;
  struct iovec part = {(void *)(uintptr_t)tcp_zeros, bytes};
  struct msghdr message;
  memset(&message, 0, sizeof message);
  memset(&control, 0, sizeof control);
  message.msg_name = (void *)(uintptr_t)peer;
  message.msg_namelen = peer ? address_length(peer) : 0;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (segment) {
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof segment);
    memcpy(CMSG_DATA(c), &segment, sizeof segment);
  }
  if (sendmsg(fd, &message, 0) != (ssize_t)bytes) give_up("a UDP send of %zu bytes, segments of %u", bytes, segment);
  return segment ? (bytes + segment - 1) / segment : 1;
}
static inline void udp_round(struct udp_load *load, int fd, const address *to, bool is_connected, uint64_t *random) {
  uint64_t choice = check_random(random), datagrams;
  size_t bytes = (size_t)(choice >> 8) % 1473;
  uint16_t segment = 0;
  if (choice % 8 == 0) bytes = 0; /* an empty datagram is one as well */
  if (choice % 8 == 1) bytes = (size_t)(choice >> 8) % 60000;
  if (choice % 8 >= 5) {
    segment = (uint16_t)(100 + (choice >> 8) % 1300);
    bytes = 1 + (size_t)(choice >> 24) % (40 * (size_t)segment); /* the last one is shorter */
  }
  datagrams = udp_send_segments(fd, is_connected ? NULL : to, bytes, segment);
  struct udp_flow *f = udp_flow(load, CLIENT, fd, to);
  f->bytes_out += bytes;
  f->datagrams_out += datagrams;
  __atomic_fetch_add(&load->sent, datagrams, __ATOMIC_RELEASE);
}
static inline void udp_overflow(struct udp_load *load, int family) {
  address to = loopback(family ? AF_INET6 : AF_INET, load->ports[family][UDP_RECEIVERS]);
  int fd = connected(to.any.sa_family, SOCK_DGRAM, address_port(&to));
  for (int i = 0; i < UDP_OVERFLOW; i++) udp_send_segments(fd, NULL, 600, 0);
  struct udp_flow *f = udp_flow(load, CLIENT, fd, &to);
  f->bytes_out = 600 * UDP_OVERFLOW;
  f->datagrams_out = UDP_OVERFLOW;
}
static inline void udp_send_all(struct udp_load *load) {
  uint64_t random = load->seed, datagrams, got = 0;
  int sockets[2 * UDP_SENDERS], large = 16 << 20;
  size_t length;
  address peer;
  for (int i = 0; i < 2 * UDP_SENDERS; i++) {
    int family = i & 1, kind = family ? AF_INET6 : AF_INET, first = (i >> 2) % UDP_RECEIVERS;
    bool is_connected = i >> 1 & 1;
    int fd = is_connected ? connected(kind, SOCK_DGRAM, load->ports[family][first])
                          : socket(kind, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockets[i] = fd;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &large, sizeof large);
    for (int round = 0; round < UDP_ROUNDS; round++)
      for (int k = 0; k < (is_connected ? 1 : UDP_RECEIVERS); k++) {
        address to = loopback(kind, load->ports[family][is_connected ? first : k]);
        udp_round(load, fd, &to, is_connected, &random);
      }
  }
  udp_overflow(load, 0);
  udp_overflow(load, 1);
  word_store(&load->sent_all, 1);
  for (uint64_t end = now_ns() + UINT64_C(25000000000); now_ns() < end; nap_us(500)) {
    bool all = word_load(&load->answered_all);
    for (int i = 0; i < 2 * UDP_SENDERS; i++)
      while (udp_receive(load, CLIENT, sockets[i], &datagrams, &length, &peer)) got += datagrams;
    if (all && got >= __atomic_load_n(&load->answered, __ATOMIC_ACQUIRE)) break;
  }
}

/* Forks both processes; their sockets are made after udp_load_go. */
static inline struct udp_load *udp_load_start(uint64_t seed) {
  struct udp_load *load = (struct udp_load *)shared(sizeof *load);
  load->seed = seed;
  for (int side = 0; side < SIDES; side++) {
    pid_t pid = fork_named(udp_commands[side]);
    if (pid) {
      load->processes[side] = pid;
      continue;
    }
    word_wait(&load->go, 1);
    if (side == SERVER) {
      udp_serve(load);
    } else {
      word_wait(&load->receiving, 1);
      udp_send_all(load);
    }
    _exit(0);
  }
  return load;
}
static inline void udp_load_end(struct udp_load *load) {
  for (int side = 0; side < SIDES; side++) join_process(load->processes[side], "the UDP load");
}
#endif
