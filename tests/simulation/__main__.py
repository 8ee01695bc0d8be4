"""Runs seeds by hand: `python -m tests.simulation SEED --trace`, or `python -m tests.simulation --seeds 0:2000`."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter

from tests.simulation.chance import Trace, Violation
from tests.simulation.run import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="the one to run")
    parser.add_argument("--seeds", metavar="FROM:TO", help="run these, and name those that fail")
    parser.add_argument("--trace", action="store_true", help="print what happens as it happens")
    options = parser.parse_args()
    if options.seeds is None:
        if options.seed is None:
            parser.error("give a seed or --seeds")
        result = simulate(options.seed, Trace(tell=print if options.trace else None))
        print(result)
        return 0
    first, last = map(int, options.seeds.split(":"))
    failures: Counter[str] = Counter()
    begun = time.monotonic()
    for seed in range(first, last):
        try:
            simulate(seed)
        except (Exception, Violation) as error:  # noqa: BLE001  told below
            frames = traceback.extract_tb(error.__traceback__)
            where = next((f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in reversed(frames)), "")
            if failures.total() < 30:
                print(f"seed {seed}: {type(error).__name__}: {str(error)[:200]} [{where}]", flush=True)
            failures[f"{type(error).__name__}: {str(error)[:60]}"] += 1
    print(f"{last - first} seeds in {time.monotonic() - begun:.1f} s, {failures.total()} failed")
    for what, count in failures.most_common():
        print(f"{count:5} {what}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
