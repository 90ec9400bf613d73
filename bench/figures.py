"""The figures of `bench/results.json`: which module measures which, and what they must show."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

Results = Mapping[str, Any]

_OPERATORS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}

WINDOWS = ("w1", "w16", "w256")
CHANNELS = ("1", "10", "100", "1000", "10000")

KEYS: dict[str, dict[str, tuple[str, ...]]] = {
    "vouchers": {"vouchers_per_s": (), "secp256k1_verify_per_s": (), "x402_voucher_verify_per_s": ()},
    "streams": {
        "durable_ticks_per_s": WINDOWS,
        "bare_sketch_ticks_per_s": (),
        "cpu_us_per_tick": ("supplier", "consumer"),
        "coalesced_ticks_per_s": ("8", "64"),
        "sha256_per_s": (),
        "commit_per_s": (),
        "link_round_trips_per_s": (),
        "round_trip_ms": ("p50", "p99"),
    },
    "payments": {"payments_per_s_by_channels": CHANNELS},
    "restart": {"restart_s_100k_channels": ()},
    "sessions": {
        "sessions": ("count", "cpu", "kb_each", "p99_ms"),
        "sessions_plain": ("count", "cpu", "kb_each", "p99_ms"),
    },
    "forwarder": {"forwarded_mb_per_s": ("stream", "escrow", "unpaid")},
    "hops": {
        "direct_ticks_per_s": WINDOWS,
        "hop_ticks_per_s": WINDOWS,
        "direct_cpu_us_per_tick": WINDOWS,
        "hop_cpu_us_per_tick": WINDOWS,
        "tick_ms": ("direct", "hops"),
        "hub_messages": ("lock", "between", "fold"),
        "hub_at_once": ("sessions", "lock_cpu_ms", "settle_cpu_ms", "vouchers", "kb_each", "seconds"),
    },
    "coldstart": {"cli_help_cpu_s": (), "consume_cpu_s": ()},
}
"""By module, in the order in which they run: the keys that its `run()` returns, and the keys within each."""


class Target(NamedTuple):
    """A figure of a module beside what it must be, such as "at least 0.7": an operator and a number."""

    name: str
    module: str
    figure: Callable[[Results], float]
    must: str
    bound: float

    @property
    def text(self) -> str:
        return f"{self.must} {short(self.bound)}"

    def met(self, value: float) -> bool:
        return bool(_OPERATORS[self.must](value, self.bound))


def _window_1(r: Results) -> float:
    """Against one commit and one round trip, one after the other: what a window of 1 cannot beat."""
    return float(r["durable_ticks_per_s"]["w1"] * (1 / r["commit_per_s"] + 1 / r["link_round_trips_per_s"]))


def _flatness(r: Results) -> float:
    rates = r["payments_per_s_by_channels"].values()
    return float(min(rates) / max(rates))


def _paid(r: Results, rail: str) -> float:
    rates = r["forwarded_mb_per_s"]
    return float(rates[rail] / rates["unpaid"])


def _over_hubs(r: Results, what: str) -> float:
    return float(r[f"hop_{what}"]["w256"] / r[f"direct_{what}"]["w256"])


def _hop_rate(r: Results) -> float:
    return _over_hubs(r, "ticks_per_s")


def _hop_cpu(r: Results) -> float:
    return _over_hubs(r, "cpu_us_per_tick")


def _hop_time(r: Results) -> float:
    return float(r["tick_ms"]["hops"] / r["tick_ms"]["direct"])


TARGETS = (
    Target("durable ticks/s, window 256", "streams", lambda r: r["durable_ticks_per_s"]["w256"], ">=", 100_000),
    Target(
        "durable ticks, window 256, vs a bare sketch",
        "streams",
        lambda r: r["durable_ticks_per_s"]["w256"] / r["bare_sketch_ticks_per_s"],
        ">=",
        0.50,
    ),
    Target(
        "64 ticks a message vs bare SHA-256",
        "streams",
        lambda r: r["coalesced_ticks_per_s"]["64"] / r["sha256_per_s"],
        ">=",
        0.80,
    ),
    Target(
        "8 ticks a message vs bare SHA-256",
        "streams",
        lambda r: r["coalesced_ticks_per_s"]["8"] / r["sha256_per_s"],
        ">=",
        0.50,
    ),
    Target("durable ticks, window 1, vs commit + round trip", "streams", _window_1, ">=", 0.60),
    Target("payments/s, slowest vs fastest of 1 to 10,000 channels", "payments", _flatness, ">=", 0.75),
    Target("sessions at once", "sessions", lambda r: r["sessions"]["count"], ">=", 10_000),
    Target("cores for all sessions", "sessions", lambda r: r["sessions"]["cpu"], "<", 1.0),
    Target("kB a session", "sessions", lambda r: r["sessions"]["kb_each"], "<=", 40),
    Target("acknowledgement p99 of all sessions, ms", "sessions", lambda r: r["sessions"]["p99_ms"], "<", 100),
    Target("1 GB forwarded, paid by stream vs unpaid", "forwarder", lambda r: _paid(r, "stream"), ">=", 0.50),
    Target("1 GB forwarded, paid by escrow vs unpaid", "forwarder", lambda r: _paid(r, "escrow"), ">=", 0.50),
    Target("ticks/s over three hubs vs a direct channel", "hops", _hop_rate, ">=", 0.90),
    Target("CPU of a tick over three hubs vs a direct channel", "hops", _hop_cpu, "<=", 1.10),
    Target("a tick's time over three hubs vs a direct channel", "hops", _hop_time, "<=", 1.10),
    Target("messages to hubs between lock and fold", "hops", lambda r: r["hub_messages"]["between"], "<=", 0),
    Target("sessions at once through one hub", "hops", lambda r: r["hub_at_once"]["sessions"], ">=", 500),
    Target("restart with 100,000 channels, s", "restart", lambda r: r["restart_s_100k_channels"], "<", 3.0),
    Target("penstock --help, CPU s", "coldstart", lambda r: r["cli_help_cpu_s"], "<", 0.3),
    Target("penstock consume to its first tick, CPU s", "coldstart", lambda r: r["consume_cpu_s"], "<", 1.0),
    Target(
        "vouchers vs bare secp256k1 verification",
        "vouchers",
        lambda r: r["vouchers_per_s"] / r["secp256k1_verify_per_s"],
        ">=",
        0.70,
    ),
    Target(
        "vouchers vs x402 with coincurve",
        "vouchers",
        lambda r: r["vouchers_per_s"] / r["x402_voucher_verify_per_s"],
        ">=",
        6.0,
    ),
)


def wrong_shape(module: str, figures: Results) -> str:
    """What is wrong with what a module returned; empty where all its keys are there. What is beyond is printed only."""
    for key, inner in KEYS[module].items():
        if key not in figures:
            return f"no {key}"
        found = tuple(figures[key]) if isinstance(figures[key], Mapping) else ()
        if set(found) != set(inner):
            return f"{key} has {sorted(found)}, not {sorted(inner)}"
    return ""


def tidy(value: Any) -> Any:
    """Three digits, or whole from a thousand up: more would be noise."""
    if isinstance(value, Mapping):
        return {str(key): tidy(inner) for key, inner in value.items()}
    if not isinstance(value, float):
        return value
    return round(value) if value >= 1000 else float(f"{value:.3g}")


def targets(results: Results) -> Iterator[tuple[Target, float | None]]:
    """Each target with its figure; None where what it takes was not measured."""
    for target in TARGETS:
        try:
            yield target, target.figure(results)
        except KeyError:
            yield target, None


def doubts(results: Results) -> dict[str, str]:
    """By module, why its figures are doubtful."""
    return {module: doubt for module, doubt in results.get("doubts", {}).items() if doubt}


def lines(results: Results) -> list[str]:
    """The ratios as lines of text, each with its target and whether the figure is doubtful."""
    doubtful = doubts(results)
    text = []
    for target, value in targets(results):
        if value is None:
            text.append(f"       {target.name:56} not measured ({target.text})")
            continue
        verdict = "ok    " if target.met(value) else "MISSED"
        doubt = f"  doubtful: {doubtful[target.module]}" if target.module in doubtful else ""
        text.append(f"{verdict} {target.name:56} {short(value):>8} ({target.text}){doubt}")
    return text


def table(results: Results) -> str:
    """Machine, ratios and figures as Markdown."""
    machine = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in results.get("machine", {}).items())
    text = [f"Measured on: {machine}; steal {results.get('steal', 0)}%.", ""]
    text += ["| what | figure | target |", "| --- | ---: | ---: |"]
    for target, value in targets(results):
        text.append(f"| {target.name} | {'' if value is None else short(value)} | {target.text} |")
    text += ["", "| key | figure |", "| --- | --- |"]
    for keys in KEYS.values():
        text += [f"| `{key}` | {_cell(results[key])} |" for key in keys if key in results]
    text += [f"\nDoubtful: {module} ({doubt})." for module, doubt in doubts(results).items()]
    return "\n".join(text) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {short(inner)}" for key, inner in value.items())
    return short(value)


def short(value: float) -> str:
    """A figure as people read it."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}" if isinstance(value, float) else str(value)
