"""What is failing: the endpoint or the study. What a failure is taken for, and how long who waits for it."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from dicomwatchd.errors import OutOfReach, Throttled, Transient
from dicomwatchd.model import Uid
from dicomwatchd.pipeline.backoff import (
    DOWN_AFTER_ANY,
    ENDPOINT_PAUSE_SECONDS,
    FIRST_PAUSE_SECONDS,
    LEFT_ALONE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Backoff,
    Verdict,
    gently,
    pause_seconds,
)
from dicomwatchd.queue.claims import BLAMED_OFTEN

STUDIES = [Uid(f"1.2.{number}") for number in range(1, 200)]
A, B, C, D = STUDIES[:4]
STORE, CATALOGUE = "s3 at test", "dynamodb at test"


class Case:
    """A backoff on a clock that is told."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.backoff = Backoff(lambda: self.seconds, Random(1))

    def failed(
        self,
        study: Uid,
        *,
        endpoint: str = STORE,
        began: float | None = None,
        attempts: int = 0,
        blamed: int = 0,
        kind: type[Transient] = OutOfReach,
        retry_after: float | None = None,
    ) -> Verdict:
        error = kind("down", endpoint=endpoint, retry_after_seconds=retry_after)
        at = self.seconds if began is None else began
        return self.backoff.failed(error, study, began=at, attempts=attempts, blamed=blamed)

    def passed(self, study: Uid) -> bool:
        self.seconds += 0.01
        came_back = self.backoff.passed(study)
        self.seconds += 0.01
        return came_back


@pytest.fixture
def case() -> Case:
    return Case()


# -- an endpoint ------------------------------------------------------------------------------------------------------


def test_one_study_that_fails_makes_no_endpoint_ill(case: Case) -> None:
    for attempts in range(20):
        verdict = case.failed(A, attempts=attempts)
        assert verdict.shared and not case.backoff.in_trouble and case.backoff.pause() == 0
        assert 0 < verdict.own_pause_seconds <= ENDPOINT_PAUSE_SECONDS, (
            "it may well be the endpoint: it waits no longer"
        )
        assert verdict.blamed == 0
    assert case.backoff.remaining() == {}


def test_two_that_fail_in_a_row_do(case: Case) -> None:
    case.failed(A)
    verdict = case.failed(B)
    assert verdict.shared and verdict.own_pause_seconds == 0
    assert 0 < verdict.pause_seconds == case.backoff.pause() <= FIRST_PAUSE_SECONDS
    assert set(case.backoff.remaining()) == {STORE}


def test_a_pass_in_between_says_that_it_is_them(case: Case) -> None:
    case.failed(A)
    case.passed(C)
    case.failed(B)
    assert not case.backoff.in_trouble
    case.passed(C)
    assert case.failed(A).blamed == 1
    assert case.failed(B).blamed == 1
    assert not case.backoff.in_trouble


def test_two_endpoints_are_two(case: Case) -> None:
    case.failed(A, endpoint=STORE)
    case.failed(B, endpoint=CATALOGUE)
    assert not case.backoff.in_trouble
    case.failed(B, endpoint=STORE)
    assert set(case.backoff.remaining()) == {STORE}


def test_many_in_a_row_are_an_outage_even_if_something_has_passed_since_they_failed_last(case: Case) -> None:
    for study in STUDIES[:20]:
        case.failed(study)
    case.passed(STUDIES[100])
    for number, study in enumerate(STUDIES[:DOWN_AFTER_ANY], start=1):
        verdict = case.failed(study)
        assert verdict.blamed == 1
        assert case.backoff.in_trouble == (number == DOWN_AFTER_ANY)


def test_its_pause_grows_with_each_trial_and_not_beyond_half_a_minute(case: Case) -> None:
    case.failed(A)
    case.failed(B)
    pauses = []
    for number in range(20):
        pauses.append(case.backoff.pause())
        case.seconds += pauses[-1]
        assert case.backoff.pause() == 0 and case.backoff.in_trouble
        case.failed(STUDIES[number])
    assert all(later > earlier for earlier, later in pairwise(pauses[:5]))
    assert ENDPOINT_PAUSE_SECONDS / 2 <= pauses[-1] <= max(pauses) <= ENDPOINT_PAUSE_SECONDS


def test_those_under_way_when_it_began_do_not_make_the_pause_longer(case: Case) -> None:
    began = case.seconds
    case.seconds += 1
    case.failed(A, began=began)
    case.failed(B, began=began)
    first = case.backoff.pause()
    for study in STUDIES[2:6]:
        assert case.failed(study, began=began).pause_seconds == pytest.approx(first)
    case.seconds += first + 1
    for study in STUDIES[6:10]:  # timeouts, that come late
        case.failed(study, began=began)
    assert case.backoff.pause() == 0


def test_two_trials_that_fail_one_after_the_other_begin_one_pause(case: Case) -> None:
    case.failed(A)
    case.failed(B)
    case.seconds += case.backoff.pause()
    case.failed(C)
    pause = case.backoff.pause()
    case.seconds += 0.1
    case.failed(D)  # it took long, so another one had begun beside it
    assert case.backoff.pause() == pytest.approx(pause - 0.1)


def test_it_is_back_with_the_first_that_passes(case: Case) -> None:
    case.failed(A)
    case.failed(B)
    assert case.passed(C)
    assert case.backoff.pause() == 0 and not case.backoff.in_trouble
    assert not case.passed(C), "it was back already"
    case.failed(D)
    assert not case.backoff.in_trouble, "what was before does not count any more"


def test_a_pass_on_one_endpoint_says_nothing_of_another(case: Case) -> None:
    for endpoint in (STORE, CATALOGUE):
        case.failed(A, endpoint=endpoint)
        case.failed(B, endpoint=endpoint)
    case.seconds += 1
    assert case.backoff.passed(C, frozenset((STORE, "unknown")))
    assert set(case.backoff.remaining()) == {CATALOGUE}
    case.seconds += 1
    assert case.failed(A, endpoint=STORE).blamed == 1
    assert case.failed(B, endpoint=CATALOGUE).blamed == 0


def test_a_service_that_throttles_says_so_of_itself(case: Case) -> None:
    verdict = case.failed(A, kind=Throttled, retry_after=7)
    assert case.backoff.in_trouble and verdict.own_pause_seconds == 0
    assert case.backoff.pause() == pytest.approx(7)


def test_and_nobody_is_blamed_for_it(case: Case) -> None:
    for attempts in range(10):
        began = case.seconds
        case.passed(B)
        verdict = case.failed(A, kind=Throttled, attempts=attempts, began=began)
        assert verdict.blamed == 0 and not verdict.shared
        assert 0 < verdict.own_pause_seconds <= ENDPOINT_PAUSE_SECONDS, "and yet it lets the others go first"
        assert 0 < case.backoff.pause() <= FIRST_PAUSE_SECONDS


def test_nobody_makes_all_wait_for_longer_than_an_endpoint_does(case: Case) -> None:
    case.failed(A, kind=Throttled, retry_after=3600)
    assert case.backoff.pause() == ENDPOINT_PAUSE_SECONDS
    assert case.failed(B, endpoint=CATALOGUE, retry_after=3600).own_pause_seconds == ENDPOINT_PAUSE_SECONDS


# -- a study ----------------------------------------------------------------------------------------------------------


def test_a_study_that_fails_while_others_pass_has_a_growing_pause_of_its_own(case: Case) -> None:
    blamed, pauses = 0, []
    case.failed(A)
    for _ in range(15):
        case.passed(B)
        verdict = case.failed(A, blamed=blamed)
        assert verdict.blamed == blamed + 1 and not verdict.shared
        blamed = verdict.blamed
        pauses.append(verdict.own_pause_seconds)
        assert not case.backoff.in_trouble
    assert all(later > earlier for earlier, later in pairwise(pauses[:9]))
    assert pauses[0] <= FIRST_PAUSE_SECONDS and LONGEST_PAUSE_SECONDS / 2 <= pauses[-1] <= LONGEST_PAUSE_SECONDS


def test_what_passes_while_it_is_tried_counts_as_well(case: Case) -> None:
    began = case.seconds
    case.seconds += 1
    case.passed(B)
    assert case.failed(A, began=began).blamed == 1
    assert case.failed(C).blamed == 0, "what passed before it was tried says nothing"


def test_its_own_pass_does_not(case: Case) -> None:
    case.failed(A)
    case.passed(A)
    assert case.failed(A).blamed == 0


def test_those_known_to_be_ill_say_nothing_of_the_endpoint(case: Case) -> None:
    for study in STUDIES[:50]:
        verdict = case.failed(study, blamed=2)
        assert verdict.blamed == 3 and verdict.own_pause_seconds > FIRST_PAUSE_SECONDS
    assert not case.backoff.in_trouble
    case.failed(STUDIES[60])
    assert not case.backoff.in_trouble
    case.failed(STUDIES[61])
    before = case.backoff.pause()
    case.seconds += before
    case.failed(STUDIES[1], blamed=5)
    assert case.backoff.pause() == 0, "nor do they make its pause longer"


def test_in_an_outage_nobody_is_blamed(case: Case) -> None:
    for number in range(300):
        verdict = case.failed(STUDIES[number % 20], attempts=number // 20)
        assert verdict.blamed == 0
        case.seconds += case.backoff.pause()


def test_a_study_is_asked_to_wait_by_the_service(case: Case) -> None:
    case.failed(A)
    case.passed(B)
    assert case.failed(A, retry_after=600).own_pause_seconds == 600


def test_only_what_concerns_an_endpoint_is_judged(case: Case) -> None:
    with pytest.raises(ValueError, match="alone"):
        case.backoff.failed(Transient("a conflict"), A, began=0)


def test_last_failures_are_not_remembered_without_end(case: Case) -> None:
    for number in range(10_050):
        case.backoff.failed(OutOfReach("x", endpoint=STORE), Uid(f"1.3.{number}"), began=0)
    assert len(case.backoff._failed_at) == 10_000


def test_a_pause_has_jitter_in_its_upper_half() -> None:
    drawn = [pause_seconds(3, Random(seed)) for seed in range(200)]
    assert 8 <= min(drawn) < 9 and 15 < max(drawn) <= 16
    assert pause_seconds(500, Random(1)) <= LONGEST_PAUSE_SECONDS


# -- how it is found out ----------------------------------------------------------------------------------------------


def test_a_trial_begins_with_one_item() -> None:
    asked: list[list[int]] = []

    def run(function: object, items: object) -> object:
        asked.append(list(items))  # type: ignore[call-overload]
        return map(function, asked[-1])  # type: ignore[call-overload]

    assert list(gently(run)(lambda item: -item, range(12))) == [-n for n in range(12)]  # type: ignore[arg-type]
    assert [len(chunk) for chunk in asked] == [1, 2, 4, 5]
    assert list(gently(run)(lambda item: item, [])) == []  # type: ignore[arg-type]


def test_at_a_quiet_site_an_endpoint_is_not_left_alone_for_ever(case: Case) -> None:
    """Nothing passes that could end the trouble: what is not about a study finds out by itself."""
    case.failed(A)
    case.failed(B)
    assert case.backoff.is_to_be_left_alone
    case.seconds += LEFT_ALONE_SECONDS - 1
    assert case.backoff.is_to_be_left_alone
    case.seconds += 1
    assert case.backoff.in_trouble
    assert not case.backoff.is_to_be_left_alone


def test_a_study_that_is_ill_itself_keeps_nobody_from_the_endpoint(case: Case) -> None:
    case.failed(A)
    case.failed(B)
    case.seconds += LEFT_ALONE_SECONDS
    case.failed(A, blamed=BLAMED_OFTEN)
    assert not case.backoff.is_to_be_left_alone
    case.failed(C)
    assert case.backoff.is_to_be_left_alone
