"""The results as tables for a terminal, as markdown and as JSON."""

import json
import os
import sys

from . import cases

NOT_MEASURED = "-"
DOUBT = "! other load took the CPU for more than half of most samples: do not trust these rows"


def human_size(n):
    for unit, name in ((cases.TIB, "TiB"), (cases.GIB, "GiB"), (cases.MIB, "MiB"), (cases.KIB, "KiB")):
        if n >= unit and n % unit == 0:
            return f"{n // unit} {name}"
    return f"{n} B"


def human_time(ns):
    sign = "-" if ns < 0 else ""
    value = abs(ns)
    for limit, unit, name in ((1e4, 1, "ns"), (1e7, 1e3, "µs"), (1e10, 1e6, "ms")):
        if value < limit:
            break
    value /= unit
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{sign}{value:.{digits}f} {name}"


def size_text(workload, size):
    if workload.startswith("memzone"):
        return f"{size} zones"
    if workload.startswith(("iova", "region_lookup")):
        return f"{size} region" + "s" * (size > 1)
    if workload.startswith("trace"):
        return f"{size} ops"
    if workload.startswith("churn"):
        return f"16 B..{human_size(size)}"
    return human_size(size)


def keys_of(results):
    """(workload, size, threads) in the order of measuring."""
    return list(dict.fromkeys(key[:3] for key in results.rows))


def grid(title, allocators, keys, cell):
    """A table as (title, header, rows); rows without any content are left out."""
    header = ["workload", "size", "thr", *allocators]
    rows = []
    for key in keys:
        cells = [cell(key, a) for a in allocators]
        if any(c is not None for c in cells):
            workload, size, threads = key
            texts = [NOT_MEASURED if c is None else c for c in cells]
            rows.append([workload, size_text(workload, size), str(threads), *texts])
    return title, header, rows


def tables(results):
    """All tables of a run that have content."""
    keys, names = keys_of(results), results.allocators

    def time_cell(key, allocator):
        row = results.rows.get((*key, allocator))
        if not row:
            return None
        doubt = "!" if (*key, allocator) in results.disturbed else ""
        return f"{human_time(row['ns_per_op'])} ±{100 * row['spread'] / 2:.0f}%{doubt}"

    def ratio_cell(key, allocator):
        row, base = results.rows.get((*key, allocator)), results.rows.get((*key, "mimalloc"))
        return f"{row['ns_per_op'] / base['ns_per_op']:.2f}" if row and base else None

    def scaling_cell(key, allocator):
        value = results.scaling.get((*key, allocator))
        return f"{value:.2f}" if value else None

    def memory_cell(key, allocator):
        row = results.memory.get(("memory", key[1], allocator))
        if not row:
            return None
        # What the memory's own books say beats the growth of resident memory, which misses touched pages.
        extra = row.get("in_memory", row.get("resident"))
        return f"{100 * extra:.1f}%" + (f" + {100 * row['metadata']:.2f}%" if "metadata" in row else "")

    sizes = dict.fromkeys(size for name, size, _ in results.memory if name == "memory")
    memory_keys = [("live objects", size, 1) for size in sizes]
    found = [
        grid("Time per operation, median ± half the interquartile range", names, keys, time_cell),
        grid("Ratio to mimalloc's time (below 1: faster)", names, keys, ratio_cell),
        grid("Scaling: throughput of two threads / of one", names, keys, scaling_cell),
        grid("Memory beyond the live bytes (+ metadata outside the memory)", names, memory_keys, memory_cell),
        aims_table(results),
    ]
    return [t for t in found if t[2]]


def aims_table(results):
    rows = []
    for text, value, limit, kind, unit in cases.aims(results):
        space = "" if unit in "x%" else " "
        want = f"{'<=' if kind == 'max' else '>='} {limit:g}{space}{unit}"
        if value is None:
            rows.append([text, want, NOT_MEASURED, "not measured"])
            continue
        met = value <= limit if kind == "max" else value >= limit
        rows.append([text, want, f"{value:.3g}{space}{unit}", "met" if met else "MISSED"])
    return "Aims", ["aim", "wanted", "measured", ""], rows


def as_text(table, colour=False):
    title, header, rows = table
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    left = {"workload", "size", "aim", ""}

    def line(row):
        cells = [c.ljust(w) if h in left else c.rjust(w) for c, w, h in zip(row, widths, header)]
        text = "  ".join(cells).rstrip()
        return f"\033[31m{text}\033[0m" if colour and row[-1] == "MISSED" else text

    return "\n".join([title, line(header), "  ".join("-" * w for w in widths), *map(line, rows)])


def as_markdown(table):
    title, header, rows = table
    left = {"workload", "size", "aim", ""}
    rule = ["---" if h in left else "---:" for h in header]
    lines = [f"### {title}", ""]
    lines += ["| " + " | ".join(row) + " |" for row in [header, rule, *rows]]
    return "\n".join(lines)


def write_tables(results, out=sys.stdout):
    colour = out.isatty() and "NO_COLOR" not in os.environ
    for table in tables(results):
        print(f"\n{as_text(table, colour)}", file=out)
    if results.disturbed:
        print(f"\n{DOUBT}", file=out)


def markdown(results, facts):
    parts = ["\n".join(f"- {k}: {v}" for k, v in facts.items()), *map(as_markdown, tables(results))]
    return "\n\n".join(parts + [DOUBT] * bool(results.disturbed)) + "\n"


def as_json(results, facts):
    """{"rows": [...], ...}, one row a line."""
    keys = ("workload", "size", "threads", "allocator")
    more = {
        **facts,
        "seconds": round(results.seconds, 1),
        "scaling": [{**dict(zip(keys, key)), "scaling": round(v, 3)} for key, v in results.scaling.items()],
        "memory": [{"workload": w, "size": s, "allocator": n, **v} for (w, s, n), v in results.memory.items()],
        "disturbed": [dict(zip(keys, key)) for key in sorted(results.disturbed)],
        "skipped": results.skipped,
        "failed": results.failed,
    }
    rows = ",\n".join("  " + json.dumps(row) for row in results.rows.values())
    rest = "".join(f",\n{json.dumps(k)}: {json.dumps(v)}" for k, v in more.items())
    return f'{{"rows": [\n{rows}\n]{rest}\n}}\n'
