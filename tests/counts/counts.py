"""Counts that hardly vary from run to run: system calls and instructions for each push message that is delivered and acked,
and heap for each user agent that is connected and quiet. Each has a limit; one that is passed ends this with 1."""

import os
import re
import shutil
import subprocess
import sys
import time

from processes import Gateway, Load, calls_in, folder, read

PROGRAM = sys.argv[1]
# One user agent and one connection of an application server: what is done for a message does not depend on what else there
# is to do. The difference of two runs leaves out the start, the registration and the end.
FEW, MANY = 500, 2500
# User agents that are there, and those that are measured.
BEFORE, MEASURED = 100, 400

# One read for the request, one for the ack; one write for the notification, one for the answer. A tenth more, because a
# message may come in two pieces.
SOCKET_READS_MAX = 2.2
SOCKET_WRITES_MAX = 2.2
# 6.0 when this was written: those four, and the two waits, for the request and for the ack. A tenth more, as above; with async-io
# it was 17.2.
SYSTEM_CALLS_MAX = 6.6
# 86,900 when this was written, on a processor with AVX2. An eighth more, for other compilers, C libraries and processors, which
# copy and hash with other instructions; before it was first cut it was 147,300.
INSTRUCTIONS_MAX = 97_700
# DESIGN.md section 11: 2 KiB, with what the allocator adds. 1,233 when this was written, and up to 200 more: SQLite's cache grows
# meanwhile.
HEAP_BYTES_MAX = 2048


def strace(out):
    return ["strace", "-f", "-c", "-o", out]


def callgrind(out):
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]


def counts_of(tool, count, counts_in):
    """What `counts_in` finds in what `tool` writes about a gateway that delivers messages, and how many it delivered."""
    place = folder()
    out = os.path.join(place, "counts")
    # Ten seconds for the ack: one that is slowed down so much would store what it does not store alone.
    with Gateway(PROGRAM, before=tool(out), ack_window_millis=10_000) as gateway:
        load = Load(PROGRAM, gateway, "basic", "--agents", 1, "--connections", 1, "--secs", 120, "--messages", count)
        acked = load.report()["messages"]["acked"]
    counts = counts_in(out)
    shutil.rmtree(place)
    return counts, acked


def for_each_push(tool, counts_in):
    """What a push message adds to each of the counts."""
    (few, few_acked), (many, many_acked) = (counts_of(tool, count, counts_in) for count in (FEW, MANY))
    return {name: (many[name] - few.get(name, 0)) / (many_acked - few_acked) for name in many}


def instructions_in(out):
    """What callgrind counted."""
    return {"instructions": int(re.search(r"^(?:summary|totals): (\d+)", read(out), re.M)[1])}


def heap_of_a_quiet_user_agent():
    """Bytes, with those that the allocator adds."""
    massif = ["valgrind", "--tool=massif", "--massif-out-file=/dev/null"]
    with Gateway(PROGRAM, before=massif) as gateway:
        used = []
        for agents in (BEFORE, MEASURED):
            Load(PROGRAM, gateway, "idle", "--agents", agents, "--secs", 120).wait_until_connected()
            time.sleep(3)  # what is made for a while is gone
            out = os.path.join(gateway.folder, "massif")
            subprocess.run(["vgdb", f"--pid={gateway.pid}", "snapshot", out], check=True, capture_output=True)
            used.append(sum(int(number) for number in re.findall(r"^mem_heap_(?:extra_)?B=(\d+)", read(out), re.M)))
        return (used[1] - used[0]) / MEASURED


def main():
    calls = for_each_push(strace, calls_in)
    instructions = for_each_push(callgrind, instructions_in)
    counts = (
        ("reads of sockets for each push", calls["recvfrom"], SOCKET_READS_MAX),
        ("writes to sockets for each push", calls["sendto"], SOCKET_WRITES_MAX),
        ("system calls for each push", sum(calls.values()), SYSTEM_CALLS_MAX),
        ("instructions for each push", instructions["instructions"], INSTRUCTIONS_MAX),
        ("bytes of heap for each quiet user agent", heap_of_a_quiet_user_agent(), HEAP_BYTES_MAX),
    )
    for what, count, most in counts:
        print(f"{'ok' if count <= most else 'TOO MANY'}: {what}: {count:,.1f}, at most {most:,}")
    for failed in Load.failed:
        print(f"failed checks: {failed}")
    sys.exit(1 if Load.failed or any(count > most for _, count, most in counts) else 0)


main()
