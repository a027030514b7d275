"""bench/run --programs N: whole programs, unchanged, on each malloc; N rounds, the mallocs in turn.

What is compared is the processor time that a program takes (user and system, its children too), which other load on the
machine disturbs less than the time on the clock, and the most memory that was resident. Programs that are not installed
are left out, and said so.
"""

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ALLOCATORS = (  # name, library (None: none), environment
    ("glibc", None, {}),
    ("jemalloc", "libjemalloc.so", {}),
    ("mimalloc", "libmimalloc.so", {}),
    ("tcmalloc", "libtcmalloc_minimal.so", {}),
    ("extmem", "libextmem-preload.so", {}),
    ("extmem thp", "libextmem-preload.so", {"EXTMEM_BACKING": "thp"}),
)
SQL = """create table t(a integer primary key, b text, c text);
with recursive r(x) as (values(1) union all select x+1 from r where x<150000)
  insert into t select x, 'row ' || x, hex(randomblob(x % 40)) from r;
create index i on t(b);
update t set b = b || ' changed' where a % 3 = 0;
select count(*), sum(length(c)) from t where b like '%7%';
delete from t where a % 2 = 0;"""
PYTHON = """
import json, re
data = [{"n": i, "words": [str(j) * 3 for j in range(i % 20)], "x": i / 7} for i in range(25000)]
text = json.dumps(data)
again = json.loads(text)
assert len(re.findall(r'"(\\d+)"', text)) > 100000 and again == data
"""


def find_library(name, build):
    for folder in (os.path.join(build, "lib"), "/usr/lib/x86_64-linux-gnu", "/usr/local/lib"):
        if os.path.exists(os.path.join(folder, name)):
            return os.path.join(folder, name)
    return None


def patterns(build):
    for folder in (build, os.path.join(build, "bench")):
        if os.path.exists(os.path.join(folder, "patterns")):
            return os.path.join(folder, "patterns")
    sys.exit(f"bench/run: {build} holds no program `patterns`; use ./do bench")


def run(command, environment, folder, data=None):
    """Processor seconds and KiB of the largest process of a command."""
    child = subprocess.Popen(command, env=environment, cwd=folder, stdin=subprocess.PIPE if data else subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if data:
        try:
            child.stdin.write(data.encode())
            child.stdin.close()
        except BrokenPipeError:
            pass
    errors = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"{command} ended with {child.returncode}: {errors.decode(errors='replace')[-500:]}")
    told = re.search(rb"VmHWM:\s+(\d+) kB", errors)  # what wait4 tells is at least this process' own
    return usage.ru_utime + usage.ru_stime, int(told[1]) if told else usage.ru_maxrss


def run_redis(environment, folder):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    server = subprocess.Popen(["redis-server", "--port", port, "--save", "", "--daemonize", "no"], env=environment, cwd=folder,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", int(port)), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        subprocess.run(["redis-benchmark", "-p", port, "-q", "-n", "60000", "-r", "30000", "-d", "300", "-P", "16", "-t",
                        "set,get,lpush,lpop,sadd,hset,spop,zadd"], stdout=subprocess.DEVNULL, check=True)
        subprocess.run(["redis-cli", "-p", port, "shutdown", "nosave"], stdout=subprocess.DEVNULL, check=False)
        _, _, usage = os.wait4(server.pid, 0)
        server.returncode = 0
        return usage.ru_utime + usage.ru_stime, usage.ru_maxrss
    finally:
        if server.returncode is None:
            server.kill()


def workloads(build, root):
    own = patterns(build)
    yield "server, 4 threads", None, lambda e, f: run([own, "server", "4", "12"], e, f)
    yield "exchange, 2 threads", None, lambda e, f: run([own, "exchange", "2", "60"], e, f)
    yield "scratch, 2 threads", None, lambda e, f: run([own, "scratch", "2", "400"], e, f)
    yield "large with realloc", None, lambda e, f: run([own, "large", "2", "12"], e, f)
    yield "realloc in small steps", None, lambda e, f: run([own, "steps", "2", "4"], e, f)
    yield "short threads", None, lambda e, f: run([own, "threads", "4", "60"], e, f)
    yield "sqlite3", "sqlite3", lambda e, f: run(["sqlite3", ":memory:"], e, f, SQL)
    yield "python3", "python3", lambda e, f: run([sys.executable, "-c", PYTHON], {**e, "PYTHONMALLOC": "malloc"}, f)
    compile_ = ["g++", "-std=c++20", "-O1", "-fsyntax-only", "-I", f"{root}/src", "-I", f"{root}/include",
                f"{root}/src/heap/handles.cpp"]
    yield "g++", "g++", lambda e, f: run(compile_, e, f)
    yield "redis-server", "redis-server", run_redis


def main(options, build, root):
    rounds = options.programs
    build = os.path.abspath(build)
    results = {}
    missing = []
    allocators = []
    for name, library, environment in ALLOCATORS:
        path = library and find_library(library, build)
        if library and path is None:
            missing.append(f"{name}: {library} is not there")
            continue
        preload = {"LD_PRELOAD": path} if path else {}
        allocators.append((name, {"PATH": os.environ["PATH"], "LC_ALL": "C", **preload, **environment}))
    with tempfile.TemporaryDirectory(prefix="extmem-programs-") as folder:
        for label, program, action in workloads(build, root):
            if not options.filter.search(label):
                continue
            if program and shutil.which(program) is None:
                missing.append(f"{label}: not installed")
                continue
            samples = {name: [] for name, _ in allocators}
            for round_ in range(rounds):
                for name, environment in allocators:
                    samples[name].append(action(environment, folder))
                print(f"  {label}: round {round_ + 1} of {rounds}", file=sys.stderr, end="\r", flush=True)
            print(" " * 60, file=sys.stderr, end="\r")
            results[label] = {name: {"seconds": [s for s, _ in values], "kib": [k for _, k in values]}
                              for name, values in samples.items()}
    names = [name for name, _ in allocators]
    print("Processor time, seconds: median (and ± half the interquartile range)\n")
    print("| | " + " | ".join(names) + " |\n|---|" + "---:|" * len(names))
    for label, row in results.items():
        cells = []
        for name in names:
            values = sorted(row[name]["seconds"])
            spread = (values[len(values) * 3 // 4] - values[len(values) // 4]) / 2
            cells.append(f"{statistics.median(values):.3f} ±{spread:.3f}")
        print(f"| {label} | " + " | ".join(cells) + " |")
    print("\nMost resident memory, MiB: median\n")
    print("| | " + " | ".join(names) + " |\n|---|" + "---:|" * len(names))
    for label, row in results.items():
        print(f"| {label} | " + " | ".join(f"{statistics.median(row[name]['kib']) / 1024:.1f}" for name in names) + " |")
    for line in missing:
        print(f"\nleft out: {line}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump(results, f, indent=1)
    return 0
