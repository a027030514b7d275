"""bench/run --kill N: two processes on one heap, one of them killed at a random moment; how does the other fare?

rte_malloc and extmem in the same test. Programs: bench/kill/, whose lines kill_main.hpp states. Each kill has a pair of
processes of its own, because a survivor of rte_malloc may hang for ever.
"""

import concurrent.futures
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time

LIMIT_S = 2.0       # a survivor that has not answered by then hangs
START_S = 60.0      # for processes that only start
LONGEST_MS = 20.0   # the victim lives for up to this long
HUGEPAGES_EACH = 6  # of a pair of DPDK processes

# name, what the victim does, whether the survivor does the same meanwhile, whether the victim created the heap
ROWS = (
    ("pairs of 64 B", "pair", False, False),
    ("16 B to 8 KiB, 1000 live", "random", False, False),
    ("the same, the heap's creator killed", "random", False, True),
    ("the same, survivor allocating too", "random", True, False),
    ("memzone reserve, free", "memzone", False, False),
)


class Broken(Exception):
    """A process did not start: nothing of the test."""


class Process:
    def __init__(self, program, role, name, memory, environment):
        self._buffer = b""
        self._child = subprocess.Popen(
            [program, role, name, memory], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=environment)

    def tell(self, line):
        try:
            self._child.stdin.write(line.encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; answer() says so

    def answer(self, limit):
        """The next line; None after `limit` seconds; "ended" when it has ended."""
        deadline = time.monotonic() + limit
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._child.stdout], [], [], left)[0]:
                return None
            data = os.read(self._child.stdout.fileno(), 4096)
            if not data:
                return f"ended with status {self._child.wait()}"
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()

    def expect(self, wanted):
        found = self.answer(START_S)
        if found != wanted:
            raise Broken(f"{wanted!r} expected, got {found!r}")

    def kill(self):
        self._child.kill()
        self._child.wait()

    def close(self):
        self.kill()
        self._child.stdin.close()
        self._child.stdout.close()


def hugepage_mounts():
    with open("/proc/mounts", encoding="utf-8") as f:
        return [line.split()[1] for line in f if line.split()[2] == "hugetlbfs"]


def missing_hugepages(pairs):
    """What DPDK's multi-process mode lacks here, or nothing."""
    with open("/proc/meminfo", encoding="ascii") as f:
        free = next(int(line.split()[1]) for line in f if line.startswith("HugePages_Free"))
    wanted = HUGEPAGES_EACH * pairs
    if free < wanted:
        return f"{free} hugepages are free, {wanted} needed; as root: echo {wanted} > /proc/sys/vm/nr_hugepages"
    if not any(os.access(mount, os.W_OK) for mount in hugepage_mounts()):
        return "no hugetlbfs is mounted; as root: mount -t hugetlbfs none /mnt"
    return ""


def one_kill(program, row, name, folder, delay_s, seed):
    """(went on | hung | torn, why, is the heap torn, objects left)"""
    _, kind, survivor_too, creator_dies = row
    memory = os.path.join("/dev/shm", name)
    with open(memory, "wb"):
        pass
    environment = {**os.environ, "RUNTIME_DIRECTORY": folder, "XDG_RUNTIME_DIR": folder, "EXTMEM_RUNTIME_DIR": folder}
    processes = []
    try:
        for role in ("create", "join"):
            processes.append(Process(program, role, name, memory, environment))
            processes[-1].expect("ready")
        victim, survivor = processes if creator_dies else reversed(processes)
        survivor.tell("hold")
        survivor.expect("held")
        if survivor_too:
            survivor.tell(f"loop {kind} {seed}")
            survivor.expect("looping")
        victim.tell(f"loop {kind} {seed + 1}")
        victim.expect("looping")
        time.sleep(delay_s)
        victim.kill()
        survivor.tell(f"use {kind}")
        used = survivor.answer(LIMIT_S)
        survivor.tell("look")
        seen = survivor.answer(LIMIT_S)
        if seen == "used" or (seen or "").startswith("wrong"):  # the answer to "use" came late: it hung all the same
            seen = survivor.answer(LIMIT_S)
        torn = seen is None or not seen.startswith("sound")
        if used is None:
            return "hung", f"; the heap: {seen}", torn, None
        if used != "used":
            return "torn", used, True, None
        if torn:
            return "torn" if seen else "hung", seen or "no answer to look", True, None
        return "went on", "", False, int(seen.split()[1])
    finally:
        for process in processes:
            process.close()
        os.unlink(memory)
        remove_rests(name, folder)


def remove_rests(name, folder):
    """What killed processes left: EAL's files and hugepages, the domain's folder."""
    for mount in hugepage_mounts():
        for file in os.listdir(mount):
            if file.startswith(name + "map_"):
                os.unlink(os.path.join(mount, file))
    for base in (os.path.join(folder, "dpdk"), folder, "/var/run/dpdk"):
        shutil.rmtree(os.path.join(base, name), ignore_errors=True)


def measure(subject, program, row, kills, generator, pairs, folder):
    plan = [(generator.uniform(0, LONGEST_MS) / 1e3, generator.randrange(1, 1 << 30)) for _ in range(kills)]
    counts = {"kills": kills, "went on": 0, "hung": 0, "torn": 0, "heap torn": 0, "left": 0, "broken": 0}
    why = {}

    def work(index):
        name = f"kill-{os.getpid()}-{subject}-{ROWS.index(row)}-{index}"
        for attempt in range(3):
            try:
                return one_kill(program, row, f"{name}-{attempt}", folder, *plan[index])
            except Broken as e:
                problem = str(e)
        return "broken", problem, False, None

    with concurrent.futures.ThreadPoolExecutor(pairs) as pool:
        for verdict, text, torn, left in pool.map(work, range(kills)):
            counts[verdict] += 1
            counts["heap torn"] += torn
            counts["left"] += bool(left)
            if text:
                why[f"{verdict} {text}"] = why.get(f"{verdict} {text}", 0) + 1
    return counts, why


HEADER = ("victim's loop", "", "kills", "survivor goes on", "hangs", "goes wrong", "heap torn", "memory left over")


def table(results):
    lines = ["| " + " | ".join(HEADER) + " |", "|---|---|" + "---:|" * (len(HEADER) - 2)]
    for row in results:
        c = row["counts"]
        done = c["kills"] - c["broken"]
        cells = [row["row"], row["subject"], str(done), *(str(c[k]) for k in ("went on", "hung", "torn", "heap torn"))]
        lines.append("| " + " | ".join([*cells, f"{c['left']} of {c['went on']}"]) + " |")
    return "\n".join(lines)


def run(options, programs):
    """programs: {subject: path}. Prints the table; returns the exit status."""
    pairs = 2 * len(os.sched_getaffinity(0))
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    print(f"seed {seed} (repeat with --seed {seed}); {options.kill} kills a row, {pairs} pairs of processes at a time")
    results = []
    folder = tempfile.mkdtemp(prefix="kill-", dir="/dev/shm")
    try:
        for number, row in enumerate(ROWS):
            if not options.filter.search(row[0]):
                continue
            for subject, program in programs.items():
                lack = missing_hugepages(pairs) if subject == "dpdk" else ""
                if lack:
                    print(f"SKIPPED dpdk: {lack}", file=sys.stderr, flush=True)
                    continue
                generator = random.Random(f"{seed}/{number}")  # the same moments for both
                counts, why = measure(subject, program, row, options.kill, generator, pairs, folder)
                results.append({"row": row[0], "subject": subject, "counts": counts, "why": why})
                print(f"{row[0]}, {subject}: {counts}", file=sys.stderr, flush=True)
                for text, count in sorted(why.items(), key=lambda item: -item[1]):
                    print(f"    {count} x {text}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(table(results))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump({"seed": seed, "limit_s": LIMIT_S, "rows": results}, f, indent=1)
    return 1 if not results or any(r["counts"]["broken"] for r in results) else 0
