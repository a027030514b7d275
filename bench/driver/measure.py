"""Measuring: all workers of a case are started, then sampled in turn."""

import dataclasses
import statistics
import sys
import time

from .worker import Failed, Skipped, Worker

GOOD_QUALITY = 0.5  # a sample that was disturbed for longer is taken again ...
RETRIES = 2  # ... at most so often


def say(text):
    print(text, file=sys.stderr, flush=True)


@dataclasses.dataclass
class Results:
    """A whole run. Keys of rows, scaling and disturbed: (workload, size, threads, allocator)."""

    allocators: list
    versions: dict
    rows: dict  # key -> the row as JSON has it
    scaling: dict  # key -> throughput of all threads / of one
    memory: dict  # (workload, size, allocator) -> {name: value}
    disturbed: set  # keys of rows that other load made worthless
    skipped: list
    failed: list
    seconds: float


class Progress:
    """One line that is rewritten, where the output is a terminal."""

    def __init__(self, total):
        self.total = total
        self.start = time.monotonic()
        self.tty = sys.stderr.isatty()

    def show(self, done, text):
        if self.tty:
            passed = time.monotonic() - self.start
            sys.stderr.write(f"\r\033[K[{done}/{self.total}] {passed:4.0f} s  {text}")
            sys.stderr.flush()

    def clear(self):
        if self.tty:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def available_memory():
    with open("/proc/meminfo", encoding="ascii") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable:"))


class Run:
    """A whole run: samples of all cases, then rows."""

    def __init__(self, options, workers, skipped):
        self.options = options
        self.workers = workers
        self.skipped = skipped
        self.failed = []
        self.versions = {}
        self.samples = {}  # (workload, size, threads, allocator) -> values
        self.alone = {}  # the same keys -> throughput of all threads / of one, in each sample
        self.qualities = {}  # the same keys -> share of each sample that was undisturbed
        self.memory = {}  # (workload, size, allocator) -> {name: value}
        self.repeated = 0
        self.started = time.monotonic()
        self.done = 0.0  # share of the cases that are done

    def skip(self, case, allocator, reason, failed=False):
        entry = {"workload": case.name, "size": case.size, "threads": case.threads, "allocator": allocator,
                 "reason": reason}
        (self.failed if failed else self.skipped).append(entry)

    def attempt(self, case, name, action):
        """Calls action; what goes wrong ends this allocator's part of the case. Returns its result or None."""
        try:
            return action()
        except Skipped as e:
            self.skip(case, name, str(e))
        except Failed as e:
            self.skip(case, name, str(e), failed=True)
        return None

    def start(self, case, name):
        worker = self.attempt(case, name, lambda: Worker(self.workers[name], case, self.options))
        if worker is not None:
            self.versions[name] = worker.version
        return worker

    def sample(self, worker):
        best = worker.sample()
        for _ in range(RETRIES):
            # Behind the schedule of a quick run nothing is repeated: its rows are marked instead.
            late = time.monotonic() - self.started > self.options.budget_s * (self.done + 0.1)
            if best[1] >= GOOD_QUALITY or late:
                break
            self.repeated += 1
            best = max(best, worker.sample(), key=lambda s: s[1])
        return best

    def record(self, case, name, results, quality):
        if case.is_memory:
            self.memory[(case.name, case.size, name)] = results
            return
        if "alone" in results:
            key = (case.name, case.size, case.threads, name)
            self.alone.setdefault(key, []).append(case.threads * results.pop("alone") / results["time"])
        for result, value in results.items():
            row = case.name if result == "time" else result
            self.samples.setdefault((row, case.size, case.threads, name), []).append(value)
            self.qualities.setdefault((row, case.size, case.threads, name), []).append(quality)

    def measure(self, case):
        available = available_memory()
        if case.bytes * 1.25 > available:
            for name in self.workers:
                self.skip(case, name, f"needs {case.bytes >> 20} MiB of memory, {available >> 20} MiB are available")
            return
        rounds = 1 if case.is_memory else min(self.options.rounds, 3) if case.few else self.options.rounds
        together = case.bytes * len(self.workers) * 1.25 < available and not case.few
        alive = {}
        try:
            if together:
                for name in self.workers:
                    if (worker := self.start(case, name)) is not None:
                        alive[name] = worker
            names = list(alive) if together else list(self.workers)
            for i in range(rounds):
                for name in names[i % max(len(names), 1):] + names[:i % max(len(names), 1)]:
                    self.one_round(case, name, alive, together)
        finally:
            for worker in alive.values():
                worker.close()

    def one_round(self, case, name, alive, together):
        if any(f["allocator"] == name and f["workload"] == case.name and f["size"] == case.size
               and f["threads"] == case.threads for f in self.failed + self.skipped if "workload" in f):
            return
        if not together:
            worker = self.start(case, name)
            if worker is None:
                return
            alive[name] = worker
        worker = alive[name]
        sample = self.attempt(case, name, lambda: self.sample(worker))
        if sample is None or not together:
            alive.pop(name).close()
        if sample is not None:
            self.record(case, name, *sample)

    def tell(self, case):
        """Says once per case and reason who was left out."""
        for word, entries in (("FAILED", self.failed), ("skipped", self.skipped)):
            reasons = {}
            for e in entries:
                if (e.get("workload"), e.get("size"), e.get("threads")) == (case.name, case.size, case.threads):
                    reasons.setdefault(e["reason"], []).append(e["allocator"])
            for reason, names in reasons.items():
                say(f"{word} {case.label}: {', '.join(names)}: {reason}")

    def measure_all(self, chosen):
        """Measures the cases, one after the other."""
        progress = Progress(len(chosen))
        for i, case in enumerate(chosen):
            progress.show(i, case.label)
            self.done = i / len(chosen)
            self.measure(case)
            progress.clear()
            self.tell(case)

    def results(self):
        """What was measured, ready to be shown."""
        rows = {}
        for (workload, size, threads, name), values in self.samples.items():
            middle = statistics.median(values)
            q = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [middle] * 3
            spread = (q[2] - q[0]) / abs(middle) if middle else 0.0
            rows[(workload, size, threads, name)] = {
                "workload": workload, "size": size, "threads": threads, "allocator": name,
                "ns_per_op": float(f"{middle:.5g}"), "spread": round(spread, 4)}
        return Results(
            allocators=[n for n in self.workers if n in self.versions],
            versions=self.versions,
            rows=rows,
            scaling={key: statistics.median(values) for key, values in self.alone.items()},
            memory=self.memory,
            disturbed={k for k, values in self.qualities.items() if statistics.median(values) < GOOD_QUALITY},
            skipped=self.skipped,
            failed=self.failed,
            seconds=time.monotonic() - self.started)
