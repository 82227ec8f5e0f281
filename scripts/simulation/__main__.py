"""Plays many seeds: which of them failed, what was injected where, and how fast it went."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

from .points import POINTS, table
from .story import play
from .world import Verdict

ENOUGH = 150
"""With so many seeds each point must be hit; each seed aims at a few of them in turn."""
CHUNK = 10


def main() -> int:
    """Parse, play, report; 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/simulate")
    parser.add_argument("--seeds", type=int, default=150)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--faults", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    if options.faults < 3 or options.steps < 1 or options.seeds < 1 or options.jobs < 1:
        parser.error("at least 3 faults, and 1 step, seed and job")
    if options.seed is not None:
        return _replay(options.seed, options.steps, options.faults)
    return _play_many(options)


def _replay(seed: int, steps: int, faults: int) -> int:
    verdict = play(seed, steps=steps, faults=faults, tell=print)
    again = play(seed, steps=steps, faults=faults)
    print("hit: " + ", ".join(f"{point} {count}" for point, count in verdict.hits.items()))
    print(f"trace {verdict.trace}, and {again.trace} when played again")
    for finding in verdict.findings:
        print(f"FOUND {finding}")
    if verdict.trace != again.trace:
        print("THE SAME SEED TOOK ANOTHER WAY")
        return 1
    return 1 if verdict.findings else 0


def _play_some(seeds: range, steps: int, faults: int) -> list[Verdict]:
    return [play(seed, steps=steps, faults=faults) for seed in seeds]


def _play_many(options: argparse.Namespace) -> int:
    began_s, cpu_s = time.monotonic(), _cpu_s()
    hits: Counter[str] = Counter()
    figures: Counter[str] = Counter()
    failed: list[Verdict] = []
    done = 0
    for verdict in _verdicts(options):
        done += 1
        hits += verdict.hits
        figures += verdict.figures
        if verdict.findings:
            failed.append(verdict)
            print(f"seed {verdict.seed}: {verdict.findings[0]}", flush=True)
        if done % 1000 == 0:
            print(f"{done:,} seeds, {done / (time.monotonic() - began_s):.1f}/s", flush=True)
    took_s = time.monotonic() - began_s
    print(table(hits))
    print(", ".join(f"{name} {count:,}" for name, count in figures.items()))
    print(
        f"{done:,} seeds in {took_s:.0f} s, {done / took_s:.1f}/s, "
        f"{(_cpu_s() - cpu_s) / done:.3f} CPU s each"
    )
    missed = [point for point in POINTS if not hits[point]]
    if missed:
        print(f"NEVER HIT ({'fails the run' if done >= ENOUGH else 'too few seeds to say'}): "
              + ", ".join(missed))  # fmt: skip
    for verdict in failed[:20]:
        print(
            f"FAILED seed {verdict.seed}: scripts/simulate --seed {verdict.seed} "
            f"--steps {options.steps} --faults {options.faults}"
        )
        for finding in verdict.findings[:3]:
            print(f"    {finding}")
    is_bad = bool(failed) or (bool(missed) and done >= ENOUGH)
    print(f"{len(failed)} of {done:,} seeds failed" if failed else "no seed failed")
    return 1 if is_bad else 0


def _verdicts(options: argparse.Namespace) -> Iterator[Verdict]:
    seeds = range(options.first, options.first + options.seeds)
    if options.jobs == 1:
        for seed in seeds:
            yield play(seed, steps=options.steps, faults=options.faults)
        return
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    with ProcessPoolExecutor(options.jobs) as pool:
        for verdicts in pool.map(_play_some, chunks, repeat(options.steps), repeat(options.faults)):
            yield from verdicts


def _cpu_s() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


if __name__ == "__main__":
    sys.exit(main())
