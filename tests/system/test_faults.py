"""Every fault at every request of a shipment, on a real gateway and DynamoDB Local: nothing lost, nothing twice.

A failing case names fault, proxy and request; a failing random sequence names its seed, and the same seed gives the
same faults again.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dicomwatchd.archive.proof.evidence import LISTING_PAYS_FROM
from dicomwatchd.errors import ArchiveRefused, Transient
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.pace import Pace
from dicomwatchd.pipeline.pool import Pool
from dicomwatchd.pipeline.shipment import Bundling
from dicomwatchd.ports import SystemClock
from tests.faults.bench import Bench
from tests.faults.bench import bench as open_bench
from tests.faults.figures import Figures
from tests.faults.rules import Fault, Match, Request, Rule, applicable, random_rules
from tests.servers.amazon import Amazon
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.synthetic import Maker

#: So many attempts botocore makes at one request: as many failures in a row reach our own code.
ATTEMPTS = 3
RETRIED_BELOW = (Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.ERROR_500, Fault.SLOW_DOWN, Fault.THROTTLED)
#: What Amazon's ways of proving (checksums of parts, ETags that are no content, versions) could answer otherwise.
AT_AMAZON = (
    Fault.CUT_REQUEST,
    Fault.CONFLICT,
    Fault.ERROR_IN_200,
    Fault.WRONG_ETAG,
    Fault.ETAG_OF_KEY,
    Fault.WRONG_CHECKSUM,
    Fault.NO_CHECKSUM_ECHO,
    Fault.OTHER_VERSION,
)
#: Which byte is hit is drawn: several draws.
DRAWN = (Fault.CORRUPT_REQUEST, Fault.CORRUPT_RESPONSE)
RANDOM_SEEDS = 30
SLICES, BUNDLED_SLICES = 3, 5

Journey = list[tuple[str, int, Request]]


@pytest.fixture(scope="module")
def bench(rgw: CephRgw, dynamodb: DynamoDBLocal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    figures = Figures("faults", "each fault at each request of a shipment, and random sequences of faults")
    with open_bench(rgw, dynamodb, tmp_path_factory.mktemp("faults"), figures) as opened:
        yield opened
    if all(str(fault) in figures.details for fault in Fault):  # else only some of the tests were run
        figures.write()


@pytest.fixture(scope="module")
def bundled(rgw: CephRgw, dynamodb: DynamoDBLocal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The same with the bundled layout: the small files make two bundles, and one is left over."""
    figures = Figures("faults-bundled", "each fault at each request of a shipment, bundled layout")
    folder = tmp_path_factory.mktemp("faults-bundled")
    with open_bench(rgw, dynamodb, folder, figures, bundling=Bundling(8192, 8192)) as opened:
        yield opened
    if all(str(fault) in figures.details for fault in Fault):
        figures.write()


@pytest.fixture(scope="module")
def at_amazon(
    rgw: CephRgw, dynamodb: DynamoDBLocal, amazon: Amazon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """The same at Amazon, as documented: SSE-KMS, a bucket with versions, checksums of parts."""
    figures = Figures("faults-amazon", "faults at each request of a shipment to Amazon, as documented")
    with open_bench(rgw, dynamodb, tmp_path_factory.mktemp("faults-amazon"), figures, amazon=amazon) as opened:
        assert opened.archive.store.capabilities.checksum_of_parts
        assert not opened.archive.store.capabilities.etag_is_content
        yield opened
    if all(str(fault) in figures.details for fault in AT_AMAZON):
        figures.write()


@pytest.fixture(scope="module")
def journey(bench: Bench) -> Journey:
    return journey_of(bench, SLICES)


@pytest.fixture(scope="module")
def journey_to_amazon(at_amazon: Bench) -> Journey:
    return journey_of(at_amazon, SLICES)


@pytest.fixture(scope="module")
def bundled_journey(bundled: Bench) -> Journey:
    found = journey_of(bundled, BUNDLED_SLICES)
    bundles = {request.path for _, _, request in found if request.method == "PUT" and request.path.endswith(".tar")}
    assert len(bundles) == 2
    return found


def journey_of(bench: Bench, slices: int) -> Journey:
    """The requests of an undisturbed shipment: (proxy, number, request)."""
    assert bench.check("undisturbed", {}, slices) == []
    shipping, _ = bench.drop(slices)
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
    every_request_meets(fault, bench, journey, SLICES)


@pytest.mark.parametrize("fault", list(Fault))
def test_every_request_meets_the_fault_bundled(fault: Fault, bundled: Bench, bundled_journey: Journey) -> None:
    every_request_meets(fault, bundled, bundled_journey, BUNDLED_SLICES)


@pytest.mark.parametrize(
    "fault", [fault if fault in AT_AMAZON else pytest.param(fault, marks=pytest.mark.long) for fault in Fault]
)
def test_every_request_to_amazon_meets_the_fault(fault: Fault, at_amazon: Bench, journey_to_amazon: Journey) -> None:
    every_request_meets(fault, at_amazon, journey_to_amazon, SLICES)


def every_request_meets(fault: Fault, bench: Bench, journey: Journey, slices: int) -> None:
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
            problems += bench.check(case, {name: [rule]}, slices)
            if rule.hits != times:
                problems.append(f"{case}: struck {rule.hits} times")
            cases += 1
    assert cases, "no request of the shipment can meet it"
    bench.figures.details[str(fault)] = cases
    if problems:
        print("\n".join(problems))
    assert not problems, f"{len(problems)} problems in {cases} cases, the first: {problems[0]}"


@pytest.mark.parametrize("seed", range(RANDOM_SEEDS))
def test_random_faults(seed: int, bench: Bench) -> None:
    _random_faults(seed, bench, SLICES)


@pytest.mark.parametrize("seed", range(RANDOM_SEEDS // 3))
def test_random_faults_bundled(seed: int, bundled: Bench) -> None:
    _random_faults(seed, bundled, BUNDLED_SLICES)


@pytest.mark.parametrize("seed", range(RANDOM_SEEDS // 3))
def test_random_faults_at_amazon(seed: int, at_amazon: Bench) -> None:
    _random_faults(seed, at_amazon, SLICES)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(RANDOM_SEEDS, 1000))
def test_many_random_faults(seed: int, bench: Bench) -> None:
    _random_faults(seed, bench, SLICES)


def _random_faults(seed: int, bench: Bench, slices: int) -> None:
    rules = {
        "store": random_rules(seed, count=5, spread=60),
        "catalogue": random_rules(seed + 1_000_000, count=2, spread=20),
    }
    assert bench.check(f"seed {seed}", rules, slices) == []
    bench.figures.details["random sequences"] = bench.figures.details.get("random sequences", 0) + 1


# -- what one fault alone does not show -----------------------------------------------------------------------------


def test_a_listing_that_lies_or_breaks_off(bench: Bench) -> None:
    """A study of many files is verified by one listing instead of a HEAD for each."""
    slices = LISTING_PAYS_FROM + 1
    assert bench.check("undisturbed", {}, slices) == []
    requests = bench.store_proxy.requests()
    number, listing = next((n, r) for n, r in enumerate(requests, 1) if "list-type" in r.query)
    after = sum(r.method == "HEAD" and r.path.endswith(".dcm") for r in requests[number:])
    assert after < slices, "the listing spoke for the small files"
    problems: list[str] = []
    for fault in applicable(listing):
        for seed in range(10 if fault in DRAWN else 1):
            rule = Rule(fault, nth=number, seed=seed)
            problems += bench.check(f"{fault} (seed {seed}) at the listing", {"store": [rule]}, slices)
            assert rule.hits == 1
    assert problems == []


def test_parts_that_have_arrived_are_not_sent_again(bench: Bench) -> None:
    """5 MiB is the least that S3 allows a part: one part whole, and a rest."""
    shipping, _ = bench.drop(1)
    maker = Maker(seed=bench.seeds + 1000)
    [big] = maker.sparse_multiframe(shipping.inbox / "BIG", size_bytes=6 * 1024 * 1024, frames=1)
    last = Match(query={"partNumber": "2"}, path=big.study_uid)
    bench.archive.store._multipart._part_bytes, kept = 5 * 1024 * 1024, bench.archive.store._multipart._part_bytes  # type: ignore[attr-defined]
    try:
        # One more than botocore makes: the first is the fast path's.
        with bench.store_proxy.during(Rule(Fault.ERROR_500, last, times=ATTEMPTS + 1)):
            shipping.run()
    finally:
        bench.archive.store._multipart._part_bytes = kept  # type: ignore[attr-defined]
    assert (shipping.left(), shipping.parked()) == ([], []), shipping.why()
    assert shipping.tries > 1
    parts = [r.query["partNumber"] for r in bench.store_proxy.requests() if r.committed and "partNumber" in r.query]
    shipping.close()
    assert sorted(parts).count("1") == 1 + 1, "one of this file, one of the small one that the bench sends in parts"
    assert parts.count("2") == 1


def test_a_damaged_answer_of_the_catalogue_is_never_read(bench: Bench) -> None:
    """botocore notices, tries again, and takes the answer to its last try as it is."""
    shipping, made = bench.drop(1)
    shipping.run()
    shipping.close()
    study = Uid(made[0].study_uid)
    record = bench.archive.catalogue.get(study)
    assert record is not None
    for seed in range(20):
        rule = Rule(Fault.CORRUPT_RESPONSE, Match(target="GetItem"), times=ATTEMPTS, seed=seed)
        with bench.catalogue_proxy.during(rule), pytest.raises(Transient):
            bench.archive.catalogue.get(study)
        assert rule.hits > 1
    assert bench.archive.catalogue.get(study) == record


def test_a_refusal_is_believed_the_second_time(bench: Bench) -> None:
    shipping, made = bench.drop(1)
    with bench.store_proxy.during(Rule(Fault.REFUSED, Match(method="PUT", path=r"\.dcm$"), times=1000)):
        shipping.run()
    [(code, _)] = shipping.parked()
    assert code == "refused" and len(shipping.left()) == len(made)
    attempts = [fields for event, _, fields in shipping.log.entries if event in ("study-delayed", "study-parked")]
    assert len(attempts) == 2
    assert shipping.queue.claims.retry(made[0].study_uid)
    shipping.run()
    assert (shipping.left(), shipping.parked()) == ([], [])
    shipping.close()


@pytest.mark.parametrize("match", [Match(method="HEAD"), Match(method="GET", path=r"\.json$")])
def test_nothing_goes_while_answers_say_that_objects_expire(bench: Bench, match: Match) -> None:
    """And all of it goes, proven afresh, once they say so no more. One kind of answer is enough to hear of it."""
    shipping, made = bench.drop(2)
    with bench.store_proxy.during(Rule(Fault.EXPIRES, match, times=100_000)):
        for _ in range(10):
            shipping.step()
            assert len(shipping.left()) == len(made)
            if not shipping.queue.reports.unfinished()["moving"]:
                break
        held = [one for one in made if bench.held(made, one.sha256)]
        assert len(held) == len(made), "archived, and kept"
        assert shipping.parked() == []
    shipping.run()
    assert (shipping.left(), shipping.parked()) == ([], []), shipping.why()
    told = [event for event, _, _ in shipping.log.entries if event in ("archive-expires", "archive-stays")]
    assert told == ["archive-expires", "archive-stays"]
    shipping.close()


def test_a_store_that_stops_to_encrypt_gets_nothing_more(bench: Bench) -> None:
    """With many workers: what is under way then comes to its end, and nothing else begins."""
    pool = Pool(Pace(4, SystemClock()))
    try:
        shipping, made = bench.drop(60, workers=pool)
        rule = Rule(Fault.NO_ENCRYPTION_ECHO, Match(method="PUT", path=r"\.dcm$"), nth=3, times=1000)
        with bench.store_proxy.during(rule):
            shipping.run()
        assert isinstance(shipping.fatal, ArchiveRefused)
        assert len(shipping.left()) == len(made)
        sent = [r for r in bench.store_proxy.requests() if r.method == "PUT"]
        assert len(sent) <= 2 + 2 * pool.size, "two were confirmed; each worker may have had one under way and one next"
        shipping.restart()
        shipping.run()
        assert (shipping.left(), shipping.parked()) == ([], [])
        shipping.close()
    finally:
        pool.close()


def test_a_store_that_is_away_is_not_stormed(bench: Bench) -> None:
    pool = Pool(Pace(4, SystemClock()))
    try:
        shipping, made = bench.drop(60, workers=pool)
        rule = Rule(Fault.RESET_BEFORE, times=1_000_000)
        bench.store_proxy.set([rule])
        for tries in range(1, 6):
            shipping.step()
            assert rule.hits <= tries * 2 * pool.size * ATTEMPTS
        assert len(shipping.left()) == len(made)
        bench.store_proxy.clear()
        shipping.run()
        assert (shipping.left(), shipping.parked()) == ([], [])
        created = [r.path for r in bench.store_proxy.requests() if r.committed and r.method == "PUT" and not r.query]
        assert len(created) == len(set(created)) == len(made), "every small file once, and the manifest"
        shipping.close()
    finally:
        pool.close()
