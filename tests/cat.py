#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""cat.py OJO_CAT: what Python reads of ojo-cat's json, ndjson and csv, in the directory of cat_make's files."""
import csv
import io
import json
import os
import subprocess
import sys
import time

COLUMNS = ["timestamp_ns", "flow_id", "event_type", "name", "category", "payload", "thread_id", "extension"]


def run(*arguments):
    return subprocess.run([sys.argv[1], *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True).stdout


def check(path):
    whole = json.loads(run("-f", "json", path).decode("utf-8"))
    lines = [json.loads(line) for line in run("-f", "ndjson", path).decode("utf-8").splitlines()]
    table = list(csv.reader(io.StringIO(run("-f", "csv", path).decode("utf-8"), newline="")))
    assert whole["events"] == lines, path
    assert list(whole) == ["trace", "events"], path
    assert table[0] == COLUMNS, path
    assert len(table) == len(lines) + 1, path
    for event, row in zip(lines, table[1:]):
        assert list(event) == COLUMNS, event
        assert len(row) == 8, row
        for key, cell in zip(COLUMNS[:7], row):
            assert str(event[key]) == cell or key in ("name", "category"), (event, row)
            assert not isinstance(event[key], float), event
        extension = event["extension"]
        if extension is None:
            assert row[7] == "", row
        elif isinstance(extension, int):
            assert row[7] == str(extension), row
        elif isinstance(extension, str):
            assert row[7] == extension, (event, row)
        else:
            assert isinstance(extension, dict), event
    return whole


check("story")
check("meanings.bin")
check("v1")
numbers = check("numbers.bin")["events"]
assert numbers[-1]["payload"] == numbers[-1]["extension"] == 2**64 - 1
assert 2**53 + 1 in [event["payload"] for event in numbers]
hostile = check("hostile.bin")
texts = [event["extension"] for event in hostile["events"] if event["event_type"] == 65539]
assert texts[0] == "plain"
assert texts[1] == 'comma, quote " and\nnewline'
assert texts[3] == "\x1b]0;owned\x07\x1b[31mred"
raw = b"bad \xff\xc3(\xe2\x82\xed\xa0\x80 end"
assert texts[5] == raw.decode("utf-8", "replace"), texts[5]
assert hostile["trace"]["command"] == "ho\x1b[31mst\ufffdile", hostile["trace"]
long = check("long.bin")["events"]
assert len(long) == 200
for i in range(100):
    fill = b'"\x01\xff,'[i % 4 : i % 4 + 1].decode("utf-8", "replace")
    text, closed = long[2 * i], long[2 * i + 1]
    assert text["name"] == text["category"] == "N" * 1024
    assert text["extension"] == fill * 6120, i
    assert closed["extension"] == {"by": "peer", "layer": "transport", "reason": fill * 6116}, i
both = json.loads(run("-f", "json", "story", "peer"))
assert len(both["traces"]) == 2 and both["trace"] == both["traces"][0]
# an output that someone made non-blocking, and whose reader is slow
end, start = os.pipe()
os.set_blocking(start, False)
writer = subprocess.Popen([sys.argv[1], "-f", "csv", "long.bin"], stdout=start)
os.close(start)
time.sleep(0.3)
got = b"".join(iter(lambda: os.read(end, 65536), b""))
assert writer.wait() == 0 and got == run("-f", "csv", "long.bin"), len(got)
print("ok")
