"""What is measured: the list of cases, and the aims that the results are held against.

A case is one workload x size x threads. A worker may answer with several named results; "time" stands for the
case's own name, other names become rows of their own.
"""

import dataclasses

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40


@dataclasses.dataclass(frozen=True)
class Case:
    name: str  # the row's workload
    workload: str  # what the worker calls it
    size: int  # the row's size
    threads: int = 1
    args: tuple = ()  # further arguments for the worker
    bytes: int = 256 * MIB  # about how much memory a worker needs
    few: bool = False  # expensive: few rounds are enough

    @property
    def is_memory(self):
        """Whether its results are amounts of memory and not times."""
        return self.name in ("memory", "empty_region")

    @property
    def label(self):
        return f"{self.name} size={self.size} threads={self.threads}"

    def arguments(self):
        return ["--workload", self.workload, "--threads", str(self.threads), *map(str, self.args)]


def pair(size, threads=1, name="pair"):
    return Case(name, name, size, threads, ("--size", size))


def churn(size, live, threads=1):
    name = "churn_1m" if live == 1_000_000 else f"churn_{live // 1000}k"
    need = live * threads * (size // 2 + 192) * 3 // 2 + 64 * MIB
    return Case(name, "churn", size, threads, ("--size", size, "--count", live), need, few=need > 4 * GIB)


def simple(name, size, threads=1, **more):
    return Case(name, name, size, threads, ("--size", size), **more)


def counted(name, count, bytes_needed, few=False):
    return Case(name, name, count, 1, ("--count", count), bytes_needed, few)


def memory(size, count):
    return Case("memory", "memory", size, 1, ("--size", size, "--count", count), size * count * 2, few=True)


def trace(name, path, threads, operations, peak):
    return Case(f"trace {name}", "trace", operations, threads, ("--trace", path), max(256 * MIB, 4 * peak))


def all_cases(quick):
    if quick:
        pairs = [16, 64, 256, KIB, 4 * KIB, 64 * KIB, MIB]
        zeroed = [64, 4 * KIB, 64 * KIB]
        growth = [MIB]
        batches = [64, KIB]
        zones = [1000, 100_000]
        pairs2 = [64, KIB]
        churns2 = [KIB]
    else:
        pairs = [16 << i for i in range(17)]
        zeroed = [64, KIB, 4 * KIB, 64 * KIB, MIB]
        growth = [4 * KIB, 64 * KIB, MIB]
        batches = [16, 64, KIB, 4 * KIB]
        zones = [1000, 2500, 100_000]
        pairs2 = [64, KIB, 4 * KIB]
        churns2 = [KIB, 8 * KIB]
    cases = [pair(s) for s in pairs]
    if not quick:
        cases += [pair(s, name="lone_pair") for s in (64, KIB)]
    cases += [pair(s, name="zeroed_pair") for s in zeroed]
    cases += [churn(KIB, 10_000), churn(8 * KIB, 10_000), churn(KIB, 1_000_000)]
    if not quick:
        cases.append(churn(8 * KIB, 1_000_000))
    cases += [simple("batch", s) for s in batches]
    cases += [simple("growth", s) for s in growth]
    cases += [pair(s, threads=2) for s in pairs2]
    cases += [churn(s, 10_000, threads=2) for s in churns2]
    cases += [simple("batch", 64, threads=2)]
    cases += [simple("producer_consumer", s, threads=2) for s in (64, KIB)]
    cases += [simple(name, 128 * KIB, bytes=512 * MIB) for name in ("fragmented", "contiguous")]
    cases += [simple("region_add_remove", GIB, bytes=GIB)]
    cases += [counted("iova_lookup", n, GIB) for n in (1, 16)]
    cases += [counted("memzone", n, 64 * MIB + n * 8192) for n in zones]
    cases += [memory(64, 1_000_000), memory(4 * KIB, 50_000)]
    cases += [simple("empty_region", TIB, few=True)]
    return cases


def ratio(a, b):
    return a / b if a is not None and b else None


def aims(results):
    """Yields (text, measured value or None, limit, "max" or "min", unit) for each aim of the project."""
    for key in sorted({key[:3] for key in results.rows}):
        workload, size, threads = key

        def time(allocator):
            row = results.rows.get((*key, allocator))
            return row["ns_per_op"] if row else None

        where = f"{workload} {size} B"
        # extmem's own rte_malloc beside DPDK's.
        face = time("extmem-dpdk")
        wanted = {"pair": 40 if threads == 2 else 10 if size <= 4 * KIB or size == MIB else None, "region_add": 20,
                  "contiguous": 100, "memzone_lookup": 100 if size == 1000 else None}.get(workload)
        if face is not None and wanted:
            yield f"DPDK interface: {where}, {threads} thread{'s' * (threads > 1)}: DPDK's time / ours", \
                ratio(time("dpdk"), face), wanted, "min", "x"
        mine = time("extmem")
        if mine is None:
            continue
        if threads == 1 and workload.startswith("churn"):
            yield f"{where}: time / mimalloc's", ratio(mine, time("mimalloc")), 1.0, "max", "x"
        if threads == 1 and workload == "pair" and size <= KIB:
            yield f"{where}: time / mimalloc's", ratio(mine, time("mimalloc")), 1.15, "max", "x"
        if workload.startswith("churn") or (workload == "pair" and size <= 4 * KIB):
            text = f"{where}, {threads} thread{'s' * (threads > 1)}: rte_malloc's time / ours"
            yield text, ratio(time("dpdk"), mine), 60 if threads == 2 else 15, "min", "x"
        if (*key, "extmem") in results.scaling:
            ours, theirs = (results.scaling.get((*key, a)) for a in ("extmem", "mimalloc"))
            yield f"{where}: two-thread scaling / mimalloc's", ratio(ours, theirs), 0.95, "min", "x"
        if workload == "region_add":
            yield "add 1 GiB with 262,144 IOVAs", mine / 1e6, 5, "max", "ms"
        if workload.startswith("iova_beyond_region"):
            how = "dependent" if workload.endswith("chain") else "independent"
            yield f"IOVA lookup beyond the region's, {size} region(s), {how}", mine, 5, "max", "ns"
    for size, limit in ((64, 4.5), (4 * KIB, 1.0)):
        metadata = results.memory.get(("memory", size, "extmem"), {}).get("metadata")
        if metadata is not None:
            yield f"metadata at {size} B objects", 100 * metadata, limit, "max", "%"
    empty = results.memory.get(("empty_region", TIB, "extmem"))
    if empty:
        yield "metadata of an empty region of 1 TiB", empty["metadata_bytes"] / MIB, 1, "max", "MiB"
