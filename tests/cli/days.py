"""A made-up day of a car at a pole."""

from __future__ import annotations

import math
from random import Random

from penstock.sim.samples import About, Course, Sample

START = 1_774_742_400_000  # 2026-03-29, midnight UTC
ABOUT = About("A day of a car at a pole", "cEUR", 6, 4_000, 2_000)


def day(every: int, seed: int = 1) -> Course:
    """A made-up day, a sample `every` so many seconds: it charges where that is cheap and feeds in where it pays."""
    rng, samples = Random(seed), list[Sample]()
    total = export = paid = paid_back = 0
    reason = ""
    for second in range(0, 86_400, every):
        price = int(400_000 * math.sin(second // 900 / 96 * 4 * math.pi))
        power, why = {True: (11_000, "cheap"), False: (0, "neither pays")}[price < 100_000]
        if price > 300_000:
            power, why = -7_400, "feeding in pays"
        if 50_000 <= second < 50_600:
            power, why = 0, "grid emergency: 0 W"
        total += max(0, power) * every // 3_600
        export += max(0, -power) * every // 3_600
        paid += max(0, power * price) * every // 3_600_000
        paid_back += max(0, -power * price) * every // 3_600_000
        noise = rng.randint(-50, 50) if power else 0
        samples.append(
            Sample(
                START + second * 1_000, power + noise, price, price - 50_000, paid // 1_000, paid_back // 1_000, paid,
                paid_back, rng.randint(0, 3_000), rng.randint(0, 1_500), total, export, why if why != reason else "",
            )
        )  # fmt: skip
        reason = why
    return Course(ABOUT, tuple(samples))
