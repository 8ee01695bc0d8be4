"""Every fault at every request of a shipment, on a real gateway and DynamoDB Local: nothing lost, nothing twice.

A failing case names fault, proxy and request; a failing random sequence names its seed, and the same seed gives the
same faults again.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.bench import Bench
from tests.faults.bench import bench as open_bench
from tests.faults.figures import Figures
from tests.faults.rules import Fault, Request, Rule, applicable, random_rules
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal

#: So many attempts botocore makes at one request: as many failures in a row reach our own code.
ATTEMPTS = 3
RETRIED_BELOW = (Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.ERROR_500, Fault.SLOW_DOWN, Fault.THROTTLED)
#: Which byte is hit is drawn: several draws.
DRAWN = (Fault.CORRUPT_REQUEST, Fault.CORRUPT_RESPONSE)
RANDOM_SEEDS = 30

Journey = list[tuple[str, int, Request]]


@pytest.fixture(scope="module")
def bench(rgw: CephRgw, dynamodb: DynamoDBLocal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    figures = Figures("faults", "each fault at each request of a shipment, and random sequences of faults")
    with open_bench(rgw, dynamodb, tmp_path_factory.mktemp("faults"), figures) as opened:
        yield opened
    figures.write()


@pytest.fixture(scope="module")
def journey(bench: Bench) -> Journey:
    """The requests of an undisturbed shipment: (proxy, number, request)."""
    assert bench.check("undisturbed", {}) == []
    shipping, _ = bench.drop()
    shipping.run()
    assert shipping.left() == [] and shipping.tries <= 3
    shipping.close()
    found = [
        (name, number, request)
        for name, proxy in bench.proxies.items()
        for number, request in enumerate(proxy.requests(), 1)
    ]
    assert len(found) > 20
    bench.figures.details["requests"] = len(found)
    return found


@pytest.mark.parametrize("fault", list(Fault))
def test_every_request_meets_the_fault(fault: Fault, bench: Bench, journey: Journey) -> None:
    problems: list[str] = []
    cases = 0
    for name, number, request in journey:
        if fault not in applicable(request):
            continue
        variants = [(1, seed) for seed in range(4)] if fault in DRAWN else [(1, 0)]
        if fault in RETRIED_BELOW:
            variants.append((ATTEMPTS, 0))
        for times, seed in variants:
            rule = Rule(fault, nth=number, times=times, seed=seed)
            case = f"{fault} x{times} (seed {seed}) at the {name}'s request {number} ({request.operation})"
            problems += bench.check(case, {name: [rule]})
            if rule.hits != times:
                problems.append(f"{case}: struck {rule.hits} times")
            cases += 1
    bench.figures.details[str(fault)] = cases
    if problems:
        print("\n".join(problems))
    assert not problems, f"{len(problems)} problems in {cases} cases, the first: {problems[0]}"


@pytest.mark.parametrize("seed", range(RANDOM_SEEDS))
def test_random_faults(seed: int, bench: Bench) -> None:
    _random_faults(seed, bench)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(RANDOM_SEEDS, 1000))
def test_many_random_faults(seed: int, bench: Bench) -> None:
    _random_faults(seed, bench)


def _random_faults(seed: int, bench: Bench) -> None:
    rules = {
        "store": random_rules(seed, count=5, spread=60),
        "catalogue": random_rules(seed + 1_000_000, count=2, spread=20),
    }
    assert bench.check(f"seed {seed}", rules) == []
    bench.figures.details["random sequences"] = bench.figures.details.get("random sequences", 0) + 1
