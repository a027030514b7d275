"""The picture: a self-contained SVG, written here.

One line per workload, size and threads; time per operation to the right on a logarithmic scale; one mark per
allocator, with its interquartile range as a bar. Written by hand because it is a page of code, needs no package,
and the marks keep their colour and shape from run to run (gnuplot would bring a dozen libraries).
"""

import math
from html import escape

from . import report

# Colours that people with colour-blindness can tell apart (Okabe and Ito), with a shape each.
STYLES = {
    "extmem": ("#d55e00", "diamond"),
    "mimalloc": ("#0072b2", "circle"),
    "jemalloc": ("#009e73", "circle"),
    "tcmalloc": ("#cc79a7", "circle"),
    "glibc": ("#999999", "circle"),
    "boost": ("#8c6d31", "square"),
    "dpdk": ("#000000", "square"),
    "dpdk-main": ("#000000", "hollow"),
    "null": ("#bbbbbb", "hollow"),
}
LEFT, RIGHT, TOP, ROW = 280, 30, 114, 20
WIDTH = 1180


def axis_text(power):
    unit = ("ns", "µs", "ms", "s")[min(max(power, 0) // 3, 3)]
    return f"{10.0 ** (power - 3 * min(max(power, 0) // 3, 3)):g} {unit}"


def mark(shape, x, y, colour):
    r = 4.5
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="{colour}"/>'
    if shape == "diamond":
        points = f"{x:.1f},{y - 6.5:.1f} {x + 6.5:.1f},{y:.1f} {x:.1f},{y + 6.5:.1f} {x - 6.5:.1f},{y:.1f}"
        return f'<polygon points="{points}" fill="{colour}"/>'
    fill = "white" if shape == "hollow" else colour
    return (f'<rect x="{x - r + 0.5:.1f}" y="{y - r + 0.5:.1f}" width="{2 * r - 1}" height="{2 * r - 1}" '
            f'fill="{fill}" stroke="{colour}"/>')


def svg(results, facts):
    """The text of the picture."""
    keys = report.keys_of(results)
    allocators = results.allocators
    values = [row["ns_per_op"] for row in results.rows.values() if row["ns_per_op"] > 0]
    if not values:
        values = [1, 10]
    low = math.floor(math.log10(max(min(values), 0.5)))
    high = max(math.ceil(math.log10(max(values))), low + 1)
    height = TOP + ROW * len(keys) + 40
    scale = (WIDTH - LEFT - RIGHT) / (high - low)

    def x_of(ns):
        return LEFT + (min(max(math.log10(max(ns, 1e-9)), low), high) - low) * scale

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        '<text x="16" y="24" font-size="17" font-weight="600">Time per operation (less is better)</text>',
    ]
    for i, line in enumerate((f"{facts['machine']}; {facts['date']}; {facts['method']}", facts["allocators"])):
        out.append(f'<text x="16" y="{43 + 17 * i}" fill="#666">{escape(line)}</text>')
    at = 16
    for name in allocators:
        colour, shape = STYLES.get(name, ("#555555", "circle"))
        out.append(mark(shape, at + 6, 78, colour))
        out.append(f'<text x="{at + 17}" y="82">{escape(name)}</text>')
        at += 34 + 7.2 * len(name)
    bottom = TOP + ROW * len(keys)
    for power in range(low, high + 1):
        x = x_of(10.0**power)
        out.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{bottom}" stroke="#ccc"/>')
        for y in (TOP - 12, bottom + 16):
            out.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle" fill="#666">{axis_text(power)}</text>')
    previous = None
    for i, key in enumerate(keys):
        workload, size, threads = key
        y = TOP + ROW * i + ROW / 2
        if workload != previous and previous is not None:
            out.append(f'<line x1="16" y1="{y - ROW / 2}" x2="{WIDTH - RIGHT}" y2="{y - ROW / 2}" stroke="#ddd"/>')
        previous = workload
        label = f"{workload}  {report.size_text(workload, size)}" + (f"  {threads} threads" if threads > 1 else "")
        out.append(f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
        # extmem last, so that nothing covers it.
        for name in sorted(allocators, key=lambda a: a == "extmem"):
            row = results.rows.get((*key, name))
            if not row or row["ns_per_op"] <= 0:
                continue
            colour, shape = STYLES.get(name, ("#555555", "circle"))
            ns, half = row["ns_per_op"], row["spread"] / 2
            x1, x2 = x_of(ns * max(1 - half, 0.01)), x_of(ns * (1 + half))
            out.append(f'<line x1="{x1:.1f}" y1="{y}" x2="{x2:.1f}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
            title = f"{name}: {report.human_time(ns)} ± {100 * half:.0f} %"
            out.append(f"<g><title>{escape(title)}</title>{mark(shape, x_of(ns), y, colour)}</g>")
    out.append("</svg>")
    return "\n".join(out) + "\n"
