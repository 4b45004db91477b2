#!/usr/bin/env python3
"""Draws the tables of docs/bench/viewers.md: latency and cost against the number of viewers, as SVG.

Usage: plot-viewers.py viewers.md viewers.svg
"""

import math
import sys

WIDTH, HEIGHT, MARGIN, GAP = 440, 260, 72, 40
COLOURS = {"2": "#1f6feb", "4": "#bf5700"}


def tables(text):
    """{connections: [(viewers, p50, p99, server cores)]} of the sections "Viewers with N connections each"."""
    found, each = {}, None
    for line in text.splitlines():
        if line.startswith("## "):
            words = line.split()
            each = words[3] if line.startswith("## Viewers with ") else None
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if each and cells[0].isdigit() and len(cells) == 11 and cells[1].isdigit():
            row = (int(cells[0]), float(cells[3]), float(cells[5]), float(cells[8]))
            found.setdefault(each, []).append(row)
    return found


class Panel:
    """Axes with logarithmic scales, whole decades on the left."""

    def __init__(self, left, title, unit, low, high):
        self.left, self.low, self.high = left, math.log10(low), math.log10(high)
        self.parts = [text(left, 20, title, weight="600")]
        for exponent in range(math.ceil(self.low), math.floor(self.high) + 1):
            y = self.y(10**exponent)
            self.parts.append(line(left, y, left + WIDTH, y, "#8884"))
            self.parts.append(text(left - 6, y + 4, f"{10**exponent:g} {unit}", anchor="end"))
        for viewers in (100, 300, 1000, 3000, 10000):
            x = self.x(viewers)
            self.parts.append(line(x, MARGIN, x, MARGIN + HEIGHT, "#8884"))
            self.parts.append(text(x, MARGIN + HEIGHT + 18, f"{viewers:,}", anchor="middle"))

    def x(self, viewers):
        return self.left + WIDTH * (math.log10(viewers) - 2) / 2

    def y(self, value):
        share = (math.log10(max(value, 1e-9)) - self.low) / (self.high - self.low)
        return MARGIN + HEIGHT * (1 - min(max(share, 0), 1))

    def curve(self, points, colour, name, dashed=False):
        path = " ".join(f"{self.x(n):.1f},{self.y(v):.1f}" for n, v in points)
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        n, v = points[-1]
        self.parts.append(text(self.x(n) - 4, self.y(v) - 6, name, colour, "end"))


def line(x1, y1, x2, y2, colour):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def text(x, y, words, colour="#777", anchor="start", weight="400"):
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}">{words}</text>'


def main(source, target):
    with open(source, encoding="utf-8") as file:
        found = tables(file.read())
    if not found:
        sys.exit(f"plot-viewers: no tables in {source}")
    latency = Panel(MARGIN, "publish to last byte", "ms", 1, 10_000)
    cost = Panel(MARGIN * 2 + WIDTH + GAP, "server CPU a viewer", "ms/s", 0.1, 10)
    goal = latency.y(150)
    latency.parts += [line(MARGIN, goal, MARGIN + WIDTH, goal, "#cf222e"), text(MARGIN + 4, goal - 4, "150 ms", "#cf222e")]
    for each, rows in sorted(found.items()):
        colour = COLOURS.get(each, "#777")
        latency.curve([(n, p99) for n, _, p99, _ in rows], colour, f"p99, {each} connections")
        latency.curve([(n, p50) for n, p50, _, _ in rows], colour, "", dashed=True)
        cost.curve([(n, cores * 1000 / n) for n, *_, cores in rows], colour, f"{each} connections")
    size = f"{MARGIN * 2 + 2 * WIDTH + GAP + 20} {HEIGHT + 2 * MARGIN}"
    with open(target, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="12">\n')
        file.write("\n".join(latency.parts + cost.parts) + "\n</svg>\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
