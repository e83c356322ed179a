# SPDX-License-Identifier: MIT
# What tests/top.sh asks of ojo-top that needs traffic or a terminal. Prints a line per failure and, last,
# "COUNTS passed failed skipped".
#
#   python3 tests/top.py OJO_TOP OJO_CAT DIR   as root, where the kernel takes the probes; DIR is for files
import csv, ctypes, fcntl, io, json, os, pty, re, select, signal, socket, struct, subprocess, sys, termios, threading, time

top, cat, work = sys.argv[1:4]
counts = {"passed": 0, "failed": 0, "skipped": 0}
KEYS = ("proto local_addr local_port remote_addr remote_port pid comm state bytes_in bytes_out packets_in packets_out "
        "rate_in rate_out rtt_us retransmits cwnd age_ms partial").split()
PATIENCE = 15  # seconds for what should take a fraction of one
for signo in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(signo, signal.SIG_DFL)  # ojo-top inherits it if these are ignored, as in the background or by nohup


def check(name, ok, *details):
    counts["passed" if ok else "failed"] += 1
    if not ok:
        print("FAILED: " + name)
        for d in details:
            print("    " + (d if isinstance(d, str) else repr(d))[:2000])
    return ok


def equal(name, got, want):
    return check(name, got == want, "got  %r" % (got,), "want %r" % (want,))


def until(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    return condition()


# ---- traffic

def listener(host, port=0):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, port))
    s.listen(64)
    return s


def pair(server):
    client = socket.socket(server.family)
    client.connect(server.getsockname()[:2])
    return client, server.accept()[0]


def give(s, count):
    block = bytes(65536)
    while count:
        count -= s.send(block[:min(count, 65536)])


def take(s, count):
    while count:
        got = len(s.recv(min(count, 65536)))
        if not got:
            raise EOFError
        count -= got


def transfer(ends, there, back):
    """Moves `there` bytes from client to server, and `back` bytes back, then closes both."""
    client, served = ends
    thread = threading.Thread(target=lambda: (take(served, there), give(served, back)))
    thread.start()
    give(client, there)
    take(client, back)
    thread.join()
    client.close()
    served.close()


# ---- ojo-top as lines

class Lines:
    """ojo-top with its output gathered as it comes."""

    def __init__(self, *arguments, command=(), stdout=subprocess.PIPE):
        self.arguments = " ".join(arguments)
        self.process = subprocess.Popen([*command, top, *arguments], stdin=subprocess.DEVNULL, stdout=stdout,
                                        stderr=subprocess.PIPE)
        self.raw, self.errors = b"", b""
        self.threads = [threading.Thread(target=self.read, args=(a,)) for a in ("raw", "errors")]
        for t in self.threads:
            t.start()

    def read(self, what):
        stream = self.process.stdout if what == "raw" else self.process.stderr
        while stream:
            part = os.read(stream.fileno(), 65536)
            if not part:
                return
            setattr(self, what, getattr(self, what) + part)

    def lines(self):
        return self.raw[:self.raw.rfind(b"\n") + 1].decode("utf-8", "strict").splitlines()

    def objects(self):
        return [json.loads(line) for line in self.lines()]

    def end(self, signo=signal.SIGINT, want=0):
        if signo and self.process.poll() is None:
            self.process.send_signal(signo)
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = "it did not end"
        for t in self.threads:
            t.join(PATIENCE)
        equal("exit code of ojo-top " + self.arguments, code, want)
        return self


def ready(run, ends):
    """Waits until `run` shows a connection from before its start: then its probes are attached."""
    port = b"%d" % ends[0].getsockname()[1]
    return check("it starts: " + run.arguments, until(lambda: re.search(rb"\b" + port + rb"\b", run.raw)), run.errors.decode())


def of_port(rows, port):
    """The rows of the end that has this local port."""
    return [r for r in rows if r["local_port"] == port]


def test_json():
    server, six = listener("127.0.0.1"), listener("::1")
    port, port6 = server.getsockname()[1], six.getsockname()[1]
    before = pair(server)
    run = Lines("--json", "--interval", "0.2", "--port", "%d,%d" % (port, port6))
    if not ready(run, before):
        return run.end()
    known = {}
    for s, there, back in ((server, 1000003, 77), (six, 54321, 3000017), (server, 1, 0), (six, 0, 12)):
        ends = pair(s)
        known[ends[0].getsockname()[1]] = (s.getsockname()[1], there, back)
        if there > 1:
            time.sleep(0.5)  # so that it has lines before its last
        transfer(ends, there, back)
    before[0].send(b"x" * 500)
    before[1].recv(500)
    closed = lambda: sum(r["state"] == "CLOSED" for r in run.objects())
    until(lambda: closed() >= 2 * len(known))
    before[0].close(), before[1].close()
    time.sleep(0.05)
    run.end(signal.SIGINT)
    equal("json: nothing on stderr", run.errors, b"")
    rows = run.objects()
    check("json: the keys and their order", all(list(r) == KEYS for r in rows), rows[:1])
    check("json: types", all(isinstance(r[k], bool if k == "partial" else str if k in ("proto", "local_addr",
          "remote_addr", "comm", "state") else int) and r[k] is not None for r in rows for k in KEYS))
    check("json: only what has the ports", all({r["local_port"], r["remote_port"]} & {port, port6} for r in rows))
    comm = open("/proc/self/comm").read().rstrip("\n")
    for client, (served, there, back) in known.items():
        mine = of_port(rows, client)
        theirs = [r for r in of_port(rows, served) if r["remote_port"] == client]
        for name, r, out, back_in in (("client", mine, there, back), ("server", theirs, back, there)):
            what = "json, %s of %d bytes there, %d back" % (name, there, back)
            last = [x for x in r if x["state"] == "CLOSED"]
            if not equal(what + ": lines with CLOSED", len(last), 1):
                continue
            equal(what + ": it is the last", r[-1], last[0])
            last = last[0]
            equal(what + ": bytes", (last["bytes_out"], last["bytes_in"]), (out, back_in))
            equal(what + ": pid and command", (last["pid"], last["comm"]), (os.getpid(), comm))
            equal(what + ": not partial, tcp", (last["partial"], last["proto"]), (False, "tcp"))
            address = "127.0.0.1" if served == port else "::1"
            equal(what + ": addresses", (last["local_addr"], last["remote_addr"]), (address, address))
            check(what + ": packets", last["packets_in"] >= 2 and last["packets_out"] >= 2, last)
            check(what + ": counts never sink", all(a[k] <= b[k] for a, b in zip(r, r[1:]) for k in (
                "bytes_in", "bytes_out", "packets_in", "packets_out", "age_ms", "retransmits")), r)
            if there > 1 and there + back > 1000:
                check(what + ": lines before, and a rate", len(r) > 1 and any(x["rate_in"] or x["rate_out"] for x in r), r)
    old = of_port(rows, before[0].getsockname()[1] if before[0].fileno() >= 0 else -1) or \
        [r for r in rows if r["partial"] and r["remote_port"] == port]
    check("json: a connection from before is partial", old and all(r["partial"] for r in old), old)
    equal("json: and counted from first sight", old[-1]["bytes_out"] if old else None, 500)
    equal("json: closed just before the end, it has its last line", old[-1]["state"] if old else None, "CLOSED")
    server.close(), six.close()


def test_formats():
    server = listener("127.0.0.1")
    port = server.getsockname()[1]
    before = pair(server)
    batch = Lines("--batch", "--interval", "0.2", "--port", str(port))
    table = Lines("--csv", "--interval", "0.2", "--port", str(port), "--sort", "-local_port")
    if not (ready(batch, before) and ready(table, before)):
        return batch.end(), table.end()
    ends = pair(server)
    client = ends[0].getsockname()[1]
    until(lambda: b"[OPEN]   127.0.0.1:%d ->" % client in batch.raw)
    transfer(ends, 5000, 6000)
    until(lambda: b"[CLOSED] 127.0.0.1:%d ->" % client in batch.raw and table.raw.count(b",CLOSED,") >= 2)
    batch.end(signal.SIGTERM), table.end(signal.SIGHUP)
    there = [line for line in batch.lines() if " 127.0.0.1:%d -> 127.0.0.1:%d " % (client, port) in line]
    marks = [line.split()[0] for line in there]
    check("batch: new, open, closed", marks[:1] == ["[NEW]"] and marks[-1:] == ["[CLOSED]"] and
          set(marks[1:-1]) == {"[OPEN]"}, there)
    check("batch: the last line", there and re.fullmatch(
        r"\[CLOSED\] 127\.0\.0\.1:\d+ -> 127\.0\.0\.1:\d+ tcp CLOSED  in 5\.9K out 4\.9K  in/s \S+ out/s \S+  packets in \d+ "
        r"out \d+  rtt \S+ retransmits \d+ cwnd \S+  age \S+  %d/.+" % os.getpid(), there[-1]), there[-1:])
    old = [line for line in batch.lines() if ":%d -> 127.0.0.1:%d " % (before[0].getsockname()[1], port) in line]
    check("batch: from before the start", old and all(" tcp* " in x and x.startswith("[OPEN]") for x in old), old[:1])
    rows = list(csv.reader(io.StringIO(table.raw.decode(), newline="")))
    equal("csv: the header", rows[0], KEYS)
    check("csv: 19 fields in each row", all(len(r) == 19 for r in rows))
    rows = [dict(zip(KEYS, r)) for r in rows[1:]]
    last = [r for r in rows if r["local_port"] == str(client)][-1]
    equal("csv: the last row", (last["state"], last["bytes_in"], last["bytes_out"], last["partial"]), ("CLOSED", "6000", "5000", "false"))
    first = [int(r["local_port"]) for r in rows[:2]]
    equal("csv: --sort -local_port", first, sorted(first, reverse=True))
    for s in (*before, server):
        s.close()


def test_udp():
    sockets = []
    for host in ("127.0.0.1", "::1"):
        for _ in range(2):
            s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
            s.bind((host, 0))
            sockets.append(s)
    a, b, a6, b6 = sockets
    ports = ",".join(str(s.getsockname()[1]) for s in sockets)
    server = listener("127.0.0.1")
    before = pair(server)
    ports += ",%d" % server.getsockname()[1]
    run = Lines("--json", "--interval", "0.2", "--udp-timeout", "1.5", "--port", ports)
    batch = Lines("--batch", "--interval", "0.2", "--udp-timeout", "1500ms", "--port", ports)
    if not (ready(run, before) and ready(batch, before)):
        return run.end(), batch.end()
    for x, y in ((a, b), (a6, b6)):
        for n in (100, 200, 1, 1200):
            x.sendto(bytes(n), y.getsockname()[:2])
            y.recv(2000)
        y.sendto(bytes(50), x.getsockname()[:2])
        x.recv(2000)
    rows = lambda s: of_port([r for r in run.objects() if r["proto"] == "udp"], s.getsockname()[1])
    appeared = until(lambda: all(rows(s) for s in sockets))
    check("udp: rows appear", appeared, run.raw[-1000:].decode())
    time.sleep(3)
    seen = {s: len(rows(s)) for s in sockets}
    time.sleep(0.7)
    equal("udp: rows vanish", [len(rows(s)) for s in sockets], [seen[s] for s in sockets])
    run.end(), batch.end()
    for s, peer, out, back in ((a, b, (1501, 4), (50, 1)), (b, a, (50, 1), (1501, 4)),
                               (a6, b6, (1501, 4), (50, 1)), (b6, a6, (50, 1), (1501, 4))):
        r = rows(s)
        if not r:
            continue
        last, (host, port) = r[-1], s.getsockname()[:2]
        what = "udp %s:%d" % (host, port)
        equal(what + ": bytes and datagrams", (last["bytes_out"], last["packets_out"], last["bytes_in"], last["packets_in"]), out + back)
        equal(what + ": the 4-tuple", (last["local_addr"], last["remote_addr"], last["remote_port"]), (host, host, peer.getsockname()[1]))
        equal(what + ": state, pid", ({x["state"] for x in r}, last["pid"]), ({"-"}, os.getpid()))
        name = "[%s]:%d" % (host, port) if ":" in host else "%s:%d" % (host, port)
        closed = [x for x in batch.lines() if x.startswith("[CLOSED] %s -> " % name) and re.search(r" udp\*? - ", x)]
        equal(what + ": [CLOSED] in batch", len(closed), 1)
    for s in (*sockets, *before, server):
        s.close()


CHILD = r"""
import socket, sys, time
open("/proc/self/comm", "wb").write(bytes.fromhex(sys.argv[2]))
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.send(b"x" * 123)
print("ready", flush=True)
sys.stdin.read()
"""


def child(port, name):
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(port), name.hex()], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def test_pid_and_names():
    hostile = b'a,"\\\x1b[31mb\n\xff'
    server = listener("127.0.0.1")
    port = server.getsockname()[1]
    children = [child(port, hostile), child(port, b"other")]
    served = [server.accept()[0] for _ in children]
    runs = [Lines(mode, "--interval", "0.2", "-p", str(children[0].pid)) for mode in ("--json", "--csv", "--batch")]
    for run in runs:
        check("-p: it has lines: " + run.arguments, until(lambda: run.raw.count(b"\n") > 2), run.errors.decode())
        run.end(signal.SIGTERM)
    rows = runs[0].objects()
    equal("-p: only this pid", {r["pid"] for r in rows}, {children[0].pid})
    equal("json: a hostile command name", {r["comm"] for r in rows}, {'a,"\\\x1b[31mb\n\ufffd'})
    names = {r[6] for r in list(csv.reader(io.StringIO(runs[1].raw.decode(), newline="")))[1:]}
    equal("csv: a hostile command name", names, {'a,"\\\ufffd[31mb\ufffd\ufffd'})
    check("batch: a hostile command name", all(line.endswith('/a,"\\?[31mb??') for line in runs[2].lines()), runs[2].raw[:200])
    check("no control character on any output", not any(re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", r.raw) for r in runs))
    screen = Terminal(160, 40, "--port", str(port), "--interval", "0.2")
    check("screen: a hostile command name", screen.wait('a,"\\?[31mb??'), screen.text())
    screen.end(b"q")
    for c in children:
        c.stdin.close()
        c.wait()
    for s in served:
        s.close()
    server.close()


MANY = r"""
import json, random, socket, sys, time
name, seed, ports = sys.argv[1], int(sys.argv[2]), {"127.0.0.1": int(sys.argv[3]), "::1": int(sys.argv[4])}
udp = {"127.0.0.1": int(sys.argv[5]), "::1": int(sys.argv[6])}
open("/proc/self/comm", "w").write(name)
r = random.Random(seed)
def take(s, count):
    while count:
        count -= len(s.recv(min(count, 65536)))
for i in range(50):
    host = ("127.0.0.1", "::1")[i % 2]
    s = socket.create_connection((host, ports[host]))
    there, back = r.choice((0, 1, r.randrange(3000), r.randrange(300000))), r.choice((0, 1, r.randrange(100000)))
    s.sendall(b"%10d%10d" % (there, back) + bytes(there))
    take(s, back)
    print(json.dumps(["tcp", host, s.getsockname()[1], there + 20, back]))
    s.close()
for i in range(50):
    host = ("127.0.0.1", "::1")[i % 2]
    s = socket.socket(socket.AF_INET6 if i % 2 else socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((host, 20000 + 100 * seed + i))  # a port that is used again within the timeout would be the same flow
    s.connect((host, udp[host]))
    sizes = [r.randrange(9000) for _ in range(r.randrange(1, 8))]
    for size in sizes:
        s.send(bytes(size))
        s.recv(10)
    print(json.dumps(["udp", host, s.getsockname()[1], [sum(sizes), len(sizes)], [2 * len(sizes), len(sizes)]]))
    s.close()
"""


def serve(server, stop):
    """Takes connections and gives what they ask for, see MANY."""
    while not stop.is_set():
        if not select.select([server], [], [], 0.05)[0]:
            continue
        if server.type == socket.SOCK_DGRAM:
            server.sendto(b"ok", server.recvfrom(65536)[1])
            continue
        s = server.accept()[0]
        asked = b""
        while len(asked) < 20:
            asked += s.recv(20 - len(asked))
        take(s, int(asked[:10]))
        give(s, int(asked[10:]))
        s.recv(1)
        s.close()


def test_many():
    """200 TCP connections and 200 UDP flows of four processes, v4 and v6: all exact."""
    tcp = [listener("127.0.0.1"), listener("::1")]
    udp = []
    for host in ("127.0.0.1", "::1"):
        udp.append(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM))
        udp[-1].bind((host, 0))
    ports = [s.getsockname()[1] for s in (*tcp, *udp)]
    before = pair(tcp[0])
    run = Lines("--json", "--interval", "0.2", "--udp-timeout", "1", "--port", ",".join(map(str, ports)))
    ready(run, before)
    stop = threading.Event()
    threads = [threading.Thread(target=serve, args=(s, stop)) for s in (*tcp, *udp)]
    for t in threads:
        t.start()
    children = [subprocess.Popen([sys.executable, "-c", MANY, "many%d" % i, str(i), *map(str, ports)], stdout=subprocess.PIPE)
                for i in range(4)]
    told = [(c.pid, "many%d" % i, json.loads(line)) for i, c in enumerate(children) for line in c.communicate()[0].splitlines()]
    until(lambda: sum(r["state"] == "CLOSED" for r in run.objects()) >= 400)
    time.sleep(2)
    stop.set()
    for t in threads:
        t.join()
    rows = run.end().objects()
    last, closes = {}, {}
    for r in rows:
        key = (r["proto"], r["local_addr"], r["local_port"], r["remote_port"])
        last[key] = r
        closes[key] = closes.get(key, 0) + (r["state"] == "CLOSED")
    equal("many: connections and flows that the programs had", len(told), 400)
    bytes_wrong, packets_wrong, owner_wrong, close_wrong = [], [], [], []
    for pid, name, (proto, host, port, out, back) in told:
        peer = ports[(proto == "udp") * 2 + (host == "::1")]
        mine, theirs = last.get((proto, host, port, peer)), last.get((proto, host, peer, port))
        if not mine or not theirs:
            bytes_wrong.append((proto, host, port, "not there"))
            continue
        if proto == "udp":
            if (mine["packets_out"], mine["packets_in"]) != (out[1], back[1]) or \
                    (theirs["packets_out"], theirs["packets_in"]) != (back[1], out[1]):
                packets_wrong.append((mine, theirs, out, back))
            out, back = out[0], back[0]
        elif (closes[(proto, host, port, peer)], closes[(proto, host, peer, port)]) != (1, 1):
            close_wrong.append((mine, theirs))
        if (mine["bytes_out"], mine["bytes_in"], theirs["bytes_out"], theirs["bytes_in"]) != (out, back, back, out):
            bytes_wrong.append((mine, theirs, out, back))
        if (mine["pid"], mine["comm"], theirs["pid"]) != (pid, name, os.getpid()):
            owner_wrong.append((mine, theirs))
    for what, wrong in (("bytes", bytes_wrong), ("datagrams", packets_wrong), ("pids and commands", owner_wrong), ("closes", close_wrong)):
        equal("many: wrong " + what, (len(wrong), wrong[:2]), (0, []))
    idle = of_port(rows, before[0].getsockname()[1])
    equal("many: an idle one's segments since the start", (idle[-1]["packets_out"], idle[-1]["packets_in"]), (0, 0))
    for s in (*before, *tcp, *udp):
        s.close()


def test_segments():
    """Segments, against the kernel's own counters of an open connection."""
    server = listener("127.0.0.1")
    before = pair(server)
    run = Lines("--json", "--interval", "0.1", "--port", str(server.getsockname()[1]))
    ready(run, before)
    client, served = pair(server)
    for n in range(50):
        client.send(bytes(100 * n))
        take(served, 100 * n)
        give(served, 10)
        take(client, 10)
    time.sleep(0.5)
    for name, s in (("client", client), ("server", served)):
        out, back = struct.unpack_from("II", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), 136)
        r = [x for x in run.objects() if (x["local_port"], x["remote_port"]) == (s.getsockname()[1], s.getpeername()[1])][-1]
        equal("segments of the " + name + ", the kernel's own", (r["packets_out"], r["packets_in"]), (out, back))
    run.end()
    for s in (client, served, *before, server):
        s.close()


def test_anew():
    """A socket that is connected anew within an interval: two connections."""
    server = listener("127.0.0.1")
    before = pair(server)
    port = server.getsockname()[1]
    run = Lines("--json", "--interval", "0.5", "--sort", "partial", "--port", str(port))  # `before` begins each refresh
    ready(run, before)
    client, served = pair(server)
    first = client.getsockname()[1]
    client.send(bytes(100))
    until(lambda: of_port(run.objects(), first))
    connect = ctypes.CDLL(None).connect
    equal("anew: disconnecting", connect(client.fileno(), bytes(16), 16), 0)  # AF_UNSPEC
    client.bind(("127.0.0.1", 0))
    client.connect(("127.0.0.1", port))
    again, second = server.accept()[0], client.getsockname()[1]
    client.send(bytes(7))
    done = lambda: of_port(run.objects(), second) and any(r["state"] == "CLOSED" for r in of_port(run.objects(), first))
    check("anew: both are there", until(done), run.raw[-3000:].decode())
    run.end()
    refreshes, partial = [], False
    for r in run.objects():
        if r["partial"] and not partial or not refreshes:
            refreshes.append([])
        partial = r["partial"]
        refreshes[-1].append(r)
    of = lambda rows: [(r["local_port"], r["state"], r["bytes_out"]) for r in rows
                       if r["local_port"] in (first, second) and r["local_port"] != port]
    closing = [of(rows) for rows in refreshes if (first, "CLOSED", 100) in of(rows)]
    equal("anew: in one refresh, the old one's close and the new one", [sorted(rows) for rows in closing],
          [sorted([(first, "CLOSED", 100), (second, "ESTABLISHED", 7)])])
    for s in (client, served, again, *before, server):
        s.close()


def test_record():
    server = listener("127.0.0.1")
    before = pair(server)
    port = server.getsockname()[1]
    traces = work + "/traces"
    run = Lines("--json", "--interval", "0.2", "--port", str(port), "--record", traces)
    if not ready(run, before):
        return run.end()
    ends = pair(server)
    client = ends[0].getsockname()[1]
    transfer(ends, 100000, 200000)
    until(lambda: sum(r["state"] == "CLOSED" for r in run.objects()) >= 2)
    run.end(signal.SIGTERM)
    check("--record says what it did", re.search(rb"^ojo-top: \d+ events recorded into .*, 0 dropped$", run.errors, re.M), run.errors)
    done = subprocess.run([cat, "-f", "ndjson", traces], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    equal("--record: ojo-cat reads the trace", (done.returncode, done.stderr), (0, b""))
    events = [json.loads(line) for line in done.stdout.splitlines()]
    names = {}
    for e in events:
        names.setdefault(e["name"], []).append(e)
    for name in ("FLOW", "KERNEL_CONNECTION", "KERNEL_TCP_STATE", "KERNEL_TCP_SEND", "KERNEL_TCP_RECEIVE", "KERNEL_TCP_FINISHED"):
        check("--record: there is " + name, name in names, sorted(names))
    sent = {}
    for e in names.get("KERNEL_TCP_SEND", []):
        sent[e["flow_id"]] = sent.get(e["flow_id"], 0) + e["payload"]
    check("--record: the bytes sent, by flow", sorted(sent.values()) == [100000, 200000], sent)
    for s in (*before, server):
        s.close()
    run = subprocess.run([top, "--json", "--count", "1", "--record", "/proc/none/such"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    equal("--record into nowhere: exit code", run.returncode, 1)
    check("--record into nowhere is named", b"/proc/none/such" in run.stderr, run.stderr)


def test_ends():
    server = listener("127.0.0.1")
    many = [pair(server) for _ in range(300)]
    port = str(server.getsockname()[1])
    start = time.monotonic()
    run = Lines("--json", "--count", "3", "--interval", "0.1", "--port", port)
    run.end(None)
    check("--count 3 takes three intervals", 0.3 <= time.monotonic() - start < 5, time.monotonic() - start)
    equal("--count 3: lines", len(run.lines()), 3 * 2 * len(many))
    run = subprocess.Popen([top, "--json", "--interval", "0.05", "--port", port], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stdout.read(1000)
    run.stdout.close()
    equal("its reader goes away: SIGPIPE", run.wait(PATIENCE), -signal.SIGPIPE)
    equal("its reader goes away: silent", run.stderr.read(), b"")
    run = subprocess.Popen([top, "--json", "--interval", "0.05", "--port", port], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           restore_signals=False)  # Python ignores SIGPIPE
    run.stdout.read(1000)
    run.stdout.close()
    equal("its reader goes away, SIGPIPE is ignored", (run.wait(PATIENCE), run.stderr.read()),
          (1, b"ojo-top: standard output: Broken pipe\n"))
    read, write = os.pipe()
    run = subprocess.Popen([top, "--batch", "--port", "1"], stdout=write, stderr=subprocess.PIPE)
    os.close(write), os.close(read)
    equal("its reader goes away while there is nothing to say", run.wait(PATIENCE), -signal.SIGPIPE)
    with open("/dev/full", "w") as full:
        run = subprocess.run([top, "--csv", "--interval", "0.05"], stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE)
    equal("a full disk", (run.returncode, run.stderr), (1, b"ojo-top: standard output: No space left on device\n"))
    read, write = os.pipe()
    fcntl.fcntl(write, 1031, 4096)  # F_SETPIPE_SZ
    run = subprocess.Popen([top, "--json", "--interval", "0.05", "--port", port], stdout=write, stderr=subprocess.PIPE)
    select.select([read], [], [], PATIENCE)
    time.sleep(0.5)
    run.send_signal(signal.SIGTERM)
    start = time.monotonic()
    code = run.wait(PATIENCE)
    check("SIGTERM ends it also while nobody reads", code in (0, 1) and time.monotonic() - start < 5, code)
    os.close(read), os.close(write)
    run = Lines("--json", "--interval", "0.05", "--port", port, command=("sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh"))
    ready(run, many[0])
    run.process.send_signal(signal.SIGHUP), run.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    check("signals that were ignored at its start don't end it", run.process.poll() is None, run.process.returncode)
    run.end(signal.SIGTERM)
    for closed, want in (("<&- >&-", b"ojo-top: standard output: Bad file descriptor\n"), ("<&- >&- 2>&-", b"")):
        traces = work + "/closed%d" % len(closed)
        run = subprocess.run(["sh", "-c", "exec \"$@\" " + closed, "sh", top, "--json", "--interval", "0.05", "--count", "3",
                              "--port", port], stderr=subprocess.PIPE, timeout=PATIENCE)
        equal("started with " + closed, (run.returncode, run.stderr), (1, want))
        subprocess.run(["sh", "-c", "exec \"$@\" " + closed, "sh", top, "--json", "--interval", "0.05", "--count", "1",
                        "--port", port, "--record", traces], stderr=subprocess.DEVNULL, timeout=PATIENCE)
        done = subprocess.run([cat, traces], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        equal("started with %s: the trace" % closed, (done.returncode, done.stderr), (0, b""))
    for ends in many:
        ends[0].close(), ends[1].close()
    server.close()


def test_few_capabilities():
    """CAP_BPF and CAP_PERFMON only: TCP as ever, UDP by socket."""
    caps = "-all,+bpf,+perfmon"
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=" + caps, "--ambient-caps=" + caps]
    if subprocess.run([*command, "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        counts["skipped"] += 1
        print("skip: CAP_BPF and CAP_PERFMON only: setpriv can't give them")
        return
    server = listener("127.0.0.1")
    before = pair(server)
    a, b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    a.bind(("127.0.0.1", 0)), b.bind(("127.0.0.1", 0))
    ports = ",".join(str(s.getsockname()[1]) for s in (server, a, b))
    run = Lines("--json", "--interval", "0.2", "--port", ports, command=command)
    if ready(run, before):
        a.sendto(bytes(333), b.getsockname())
        b.recv(1000)
        transfer(pair(server), 777, 0)
        mine = lambda: of_port(run.objects(), a.getsockname()[1])
        until(lambda: mine() and any(r["state"] == "CLOSED" for r in run.objects()))
        check("few capabilities: UDP by socket", mine() and (mine()[-1]["remote_addr"], mine()[-1]["remote_port"],
              mine()[-1]["bytes_out"]) == ("*", 0, 333), mine())
        check("few capabilities: TCP is exact", any(r["state"] == "CLOSED" and r["bytes_out"] == 777 for r in run.objects()))
    run.end()
    for s in (a, b, *before, server):
        s.close()


# ---- ojo-top on a terminal

class Terminal:
    """ojo-top on a pty, and as much of an xterm as ncurses asks for."""

    def __init__(self, columns, rows, *arguments, term="xterm", locale="C.UTF-8"):
        self.columns, self.rows, self.alternate, self.unknown = columns, rows, False, set()
        self.x = self.y = 0
        self.region = (0, rows - 1)
        self.cells = [[" "] * columns for _ in range(rows)]
        self.rest, self.last = b"", " "
        self.master, self.slave = pty.openpty()
        self.size(columns, rows)
        self.before = termios.tcgetattr(self.slave)
        environment = {**os.environ, "TERM": term, "LC_ALL": locale}
        environment.pop("LINES", None), environment.pop("COLUMNS", None)
        self.process = subprocess.Popen([top, *arguments], stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                        env=environment, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def size(self, columns, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns, rows):
        self.cells = [[" "] * columns for _ in range(rows)]
        self.columns, self.rows, self.region = columns, rows, (0, rows - 1)
        self.size(columns, rows)

    def pump(self, seconds=0.0):
        while select.select([self.master], [], [], seconds)[0]:
            try:
                part = os.read(self.master, 65536)
            except OSError:
                return
            if not part:
                return
            self.rest += part
            self.interpret()

    def interpret(self):
        pattern = re.compile(rb"\x1b\[([?>]?)([0-9;]*)([@-~])|\x1b[()][0-9A-Za-z]|\x1b[=>78cM]|[\x00-\x1a\x1c-\x1f]|"
                             rb"[\x20-\x7e]+|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|\x7f")
        while self.rest:
            m = pattern.match(self.rest)
            if not m:
                if len(self.rest) > 32:
                    self.unknown.add(self.rest[:16])
                    self.rest = self.rest[1:]
                    continue
                return  # the rest of it will come
            self.rest = self.rest[m.end():]
            if m.group(3):
                self.control(m.group(1), m.group(2), m.group(3).decode())
            elif m.group(0)[0] >= 0x20:
                self.put(m.group(0).decode())
            elif m.group(0) == b"\r":
                self.x = 0
            elif m.group(0) == b"\n":
                self.line_feed()
            elif m.group(0) == b"\b":
                self.x = max(0, self.x - 1)
            elif m.group(0) == b"\x1bM":
                self.scroll(-1) if self.y == self.region[0] else setattr(self, "y", max(0, self.y - 1))
            elif m.group(0) == b"\t":
                self.x = min(self.columns - 1, (self.x // 8 + 1) * 8)

    def put(self, text):
        for c in text:
            if self.x >= self.columns:
                self.x = 0
                self.line_feed()
            self.cells[self.y][self.x] = self.last = c
            self.x += 1

    def line_feed(self):
        if self.y == self.region[1]:
            self.scroll(1)
        else:
            self.y = min(self.rows - 1, self.y + 1)

    def scroll(self, n, first=None):
        first, last = self.region[0] if first is None else first, self.region[1]
        for _ in range(abs(n)):
            if n > 0:
                del self.cells[first]
                self.cells.insert(last, [" "] * self.columns)
            else:
                del self.cells[last]
                self.cells.insert(first, [" "] * self.columns)

    def control(self, private, text, what):
        n = [int(x) if x else 0 for x in text.split(b";")]
        one, row = max(1, n[0]), self.cells[self.y] if self.y < self.rows else []
        self.x = min(self.x, self.columns - 1) if what != "m" else self.x
        if private:
            if what in "hl" and n[0] in (1049, 47, 1047):
                self.alternate = what == "h"
        elif what in "Hf":
            self.y, self.x = min(self.rows, one) - 1, min(self.columns, max(1, n[1] if len(n) > 1 else 1)) - 1
        elif what == "d":
            self.y = min(self.rows, one) - 1
        elif what in "G`":
            self.x = min(self.columns, one) - 1
        elif what == "A":
            self.y = max(0, self.y - one)
        elif what == "B":
            self.y = min(self.rows - 1, self.y + one)
        elif what == "C":
            self.x = min(self.columns - 1, self.x + one)
        elif what == "D":
            self.x = max(0, self.x - one)
        elif what == "K":
            first, last = ((self.x, self.columns), (0, self.x + 1), (0, self.columns))[n[0]]
            row[first:last] = [" "] * (last - first)
        elif what == "J":
            for y in range(self.rows):
                if n[0] == 2 or (n[0] == 0 and y > self.y) or (n[0] == 1 and y < self.y):
                    self.cells[y] = [" "] * self.columns
            if n[0] < 2:
                self.control(b"", b"%d" % n[0], "K")
        elif what == "X":
            last = min(self.columns, self.x + one)
            row[self.x:last] = [" "] * (last - self.x)
        elif what == "b":
            self.put(self.last * one)
        elif what == "@":
            row[self.x:] = ([" "] * one + row[self.x:])[:self.columns - self.x]
        elif what == "P":
            row[self.x:] = (row[self.x + one:] + [" "] * one)[:self.columns - self.x]
        elif what == "L":
            self.scroll(-one, self.y)
        elif what == "M":
            self.scroll(one, self.y)
        elif what == "S":
            self.scroll(one)
        elif what == "T":
            self.scroll(-one)
        elif what == "r":
            self.region = (max(1, n[0]) - 1, (n[1] if len(n) > 1 and n[1] else self.rows) - 1)
            self.x = self.y = 0
        elif what not in "mhlt":
            self.unknown.add(what)

    def text(self):
        return "\n".join("".join(row).rstrip() for row in self.cells)

    def wait(self, pattern, present=True, seconds=PATIENCE):
        """Waits until text (or a compiled pattern) is on the screen, or, with present False, is not."""
        end = time.monotonic() + seconds
        while True:
            self.pump(0.05)
            found = pattern.search(self.text()) if hasattr(pattern, "search") else pattern in self.text()
            if bool(found) == present:
                return True
            if time.monotonic() > end or self.process.poll() is not None:
                return False

    def keys(self, keys):
        os.write(self.master, keys)

    def end(self, how, want=0):
        """Ends it by keys or a signal; the terminal must be as before."""
        self.keys(how) if isinstance(how, bytes) else self.process.send_signal(how)
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            self.pump(0.05)
        self.pump(0.1)
        name = "screen, ended by %r" % (how,)
        if self.process.poll() is None:
            self.process.kill()
        equal(name + ": exit code", self.process.wait(), want)
        check(name + ": the alternate screen was left", not self.alternate)
        equal(name + ": the terminal's settings", termios.tcgetattr(self.slave), self.before)
        check(name + ": no sequence that xterm does not know", not self.unknown, sorted(map(repr, self.unknown)))
        os.close(self.master), os.close(self.slave)


def test_screen():
    server, six = listener("127.0.0.1"), listener("::1")
    port, port6 = server.getsockname()[1], six.getsockname()[1]
    ends = [pair(server) for _ in range(3)] + [pair(six)]
    client = ends[0][0].getsockname()[1]
    arguments = ("--interval", "0.2", "--port", "%d,%d" % (port, port6))
    for columns, rows in ((80, 24), (120, 40), (200, 50)):
        s = Terminal(columns, rows, *arguments)
        what = "screen %dx%d" % (columns, rows)
        check(what + ": a connection", s.wait("127.0.0.1:%d" % client), s.text())
        check(what + ": the alternate screen", s.alternate)
        lines = s.text().split("\n")
        check(what + ": title and columns", lines[0].startswith("ojo-top ") and " TCP " in lines[0] and
              all(c in lines[1] for c in ("LOCAL", "REMOTE", "STATE", "IN/s", "OUT/s", "COMMAND")), s.text())
        wide = [c for c in ("PRO", "PID", "RTT", "RETR", "CWND", "AGE", "PKT IN", "PKT OUT") if c in lines[1]]
        check(what + ": more columns where there is room", len(wide) == 8 if columns == 200 else len(wide) >= 1, s.text())
        check(what + ": from before the start", re.search(r"^ \* .*127\.0\.0\.1:%d" % client, s.text(), re.M), s.text())
        check(what + ": the keys at the bottom", "q quit" in lines[rows - 1], s.text())
        equal(what + ": all eight rows", len([x for x in lines[2:] if "127.0.0.1:" in x or "[::1]:" in x]), 8)
        s.end({80: b"q", 120: b"\x03", 200: signal.SIGTERM}[columns])
    for locale, arrow in (("C.UTF-8", "\u25be"), ("C", " v")):
        s = Terminal(80, 24, *arguments, locale=locale)
        s.wait("127.0.0.1:%d" % client)
        check("screen: the mark of the order is no part of the name, " + locale,
              re.search(r" IN/s%s +OUT/s%s( |$)" % (arrow, arrow), s.text().split("\n")[1]), s.text())
        s.end(b"q")
    s = Terminal(120, 40, *arguments)
    s.wait("127.0.0.1:%d" % client)
    new = pair(server)
    name = "127.0.0.1:%d" % new[0].getsockname()[1]
    new[0].send(bytes(3000))
    check("screen: a new one has +", s.wait(re.compile(r"^\+ .*" + name, re.M)), s.text())
    check("screen: then not", s.wait(re.compile(r"^  .*" + name, re.M)), s.text())
    for key, pattern in ((b"h", "IN B"), (b"h", "IN/s")):
        s.keys(key)
        check("screen: h shows " + pattern, s.wait(pattern), s.text())
    s.keys(b">")
    check("screen: > orders by the next column", s.wait("by proto"), s.text())
    s.keys(b"\x1bOC")
    check("screen: right orders by the next column", s.wait("by local_addr") and s.wait("LOCAL\u25b4"), s.text())
    s.keys(b"r")
    check("screen: r", s.wait("by local_addr reversed") and s.wait("LOCAL\u25be"), s.text())
    s.keys(b"<<")
    check("screen: < goes back to rate", s.wait("by rate"), s.text())
    s.keys(b"/")
    check("screen: the filter box", s.wait("filter:"), s.text())
    s.keys(b"::1")
    check("screen: the filter filters", s.wait("127.0.0.1:", present=False) and "[::1]:" in s.text(), s.text())
    check("screen: the title counts what passes", s.wait(" 2 of 10 connections "), s.text())
    s.keys(b"\r")
    check("screen: the filter stays", s.wait("filter: ::1") and s.wait("q quit"), s.text())
    s.keys(b"\x1b")
    check("screen: Esc ends it", s.wait("127.0.0.1:%d" % client), s.text())
    s.keys(b"/nothing of that name\r")
    check("screen: a filter that nothing passes", s.wait("no connection passes the filter"), s.text())
    s.keys(b"\x1b")
    s.wait("127.0.0.1:%d" % client)
    s.keys(b"?")
    check("screen: help", s.wait("the other way round") and s.wait("probes"), s.text())
    check("screen: help tells the probes", s.wait("tp_btf"), s.text())
    s.keys(b"x")
    check("screen: and back", s.wait(name), s.text())
    s.keys(b"/%d\r\r" % new[0].getsockname()[1])
    check("screen: detail", s.wait("socket cookie") and s.wait("last 64 refreshes"), s.text())
    new[0].send(bytes(100000))
    check("screen: its rate as blocks", s.wait(re.compile("(out/s|in/s) .*[\u2581-\u2588]")), s.text())
    check("screen: its RTT as blocks", s.wait(re.compile("RTT .*[\u2581-\u2588]")), s.text())
    s.keys(b"\x1b")
    check("screen: back from detail", s.wait("socket cookie", present=False), s.text())
    s.keys(b"\x1b")
    s.wait("127.0.0.1:%d" % client)
    s.keys(b"p")
    check("screen: pause", s.wait("PAUSED"), s.text())
    new[0].close(), new[1].close()
    time.sleep(0.8)
    s.pump()
    check("screen: while paused all stands still", name in s.text(), s.text())
    s.keys(b"p")
    check("screen: it goes on", s.wait("PAUSED", present=False) and s.wait(name, present=False), s.text())
    new = pair(server)
    name = "127.0.0.1:%d" % new[0].getsockname()[1]
    s.keys(b"/%d\r" % new[0].getsockname()[1])
    check("screen: the title counts both ends", s.wait(" 2 of 10 connections ") and s.wait(name), s.text())
    new[0].close(), new[1].close()
    check("screen: the title does not count closed ones", s.wait(re.compile(r" 0 of 8 connections .*^- .*" + name, re.M | re.S)), s.text())
    s.keys(b"\x1b")
    s.wait("127.0.0.1:%d" % client)
    new = pair(server)
    name = "127.0.0.1:%d" % new[0].getsockname()[1]
    s.wait(name)
    new[0].close(), new[1].close()
    check("screen: a closed one has - and goes", s.wait(re.compile(r"^- .*" + name, re.M)) and s.wait(name, present=False), s.text())
    for columns, rows in ((80, 24), (20, 5), (3, 2), (1, 1), (200, 50), (100, 10)):
        s.resize(columns, rows)
        if columns > 60:
            check("screen: resized to %dx%d" % (columns, rows), s.wait("LOCAL") and s.wait(re.compile("^q quit", re.M)), s.text())
        else:
            time.sleep(0.5)
            s.pump()
            check("screen: it bears %dx%d" % (columns, rows), s.process.poll() is None)
    s.keys(b"\x1b[6~\x1b[5~jjjjkk\x1bOF\x1bOH\x1bOB\x1bOA?\x1bOB\x1bOAxpp")
    s.wait("LOCAL")
    s.end(signal.SIGINT)
    s = Terminal(80, 24, *arguments)
    s.wait("127.0.0.1:")
    s.end(signal.SIGHUP)
    s = Terminal(80, 24, "--count", "2", *arguments)
    s.end(b"", 0)
    s = Terminal(80, 24, *arguments, term="dumb-no-such")
    s.wait("TERM=dumb-no-such")
    check("screen: a terminal that is not known", "try --batch" in s.text(), s.text())
    s.end(b"", 1)
    s = Terminal(80, 24, *arguments)
    s.wait("127.0.0.1:")
    os.close(s.slave), os.close(s.master)  # the window is closed
    try:
        equal("screen: its terminal goes away", s.process.wait(PATIENCE), 0)
    except subprocess.TimeoutExpired:
        s.process.kill()
        check("screen: its terminal goes away", False)
    for pairs in ends:
        pairs[0].close(), pairs[1].close()
    server.close(), six.close()


only = sys.argv[4:]
for test in (test_json, test_formats, test_udp, test_many, test_segments, test_anew, test_pid_and_names, test_record, test_ends, test_few_capabilities, test_screen):
    if only and test.__name__ not in only:
        continue
    try:
        test()
    except Exception as error:
        import traceback
        check(test.__name__ + ": " + repr(error), False, traceback.format_exc())
print("COUNTS %(passed)d %(failed)d %(skipped)d" % counts)
sys.stdout.flush()
os._exit(0)  # whatever thread may still wait
