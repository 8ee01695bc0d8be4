"""Whether a key is looked at before its object is sent: by what became of the last ones."""

from __future__ import annotations

from dicomwatchd.archive.stores.s3.taken import Taken


def key(study: int, number: int = 1, kind: str = "dcm") -> str:
    return f"studies/1.2.{study}/series/1.3/{number}/{number:064}.{kind}"


def test_nothing_is_looked_for_until_something_was_there() -> None:
    taken = Taken()
    assert not taken.is_likely(key(1))
    taken.note(key(1), False)
    assert not taken.is_likely(key(1, 2))


def test_a_study_that_was_there_is_expected_to_be() -> None:
    taken = Taken()
    taken.note(key(1), True)
    taken.note(key(2), False)
    assert taken.is_likely(key(1, 2)) and not taken.is_likely(key(2, 2))
    taken.note(key(1, 2), False)
    assert not taken.is_likely(key(1, 3))


def test_an_unknown_study_is_judged_by_the_last_object() -> None:
    taken = Taken()
    taken.note(key(1), True)
    assert taken.is_likely(key(2)) and taken.is_likely(key(2, kind="tar"))
    taken.note(key(3), False)
    assert not taken.is_likely(key(2)) and taken.is_likely(key(1))


def test_what_is_not_named_by_its_content_is_none_of_it() -> None:
    taken = Taken()
    for other in ("studies/1.2.1/manifests/000001.json", "archive.json", "audit/heads/1.json"):
        taken.note(other, True)
        assert not taken.is_likely(other)
    assert not taken.is_likely(key(1))


def test_studies_are_forgotten() -> None:
    taken = Taken()
    taken.note(key(0), True)
    for study in range(1, 2000):
        taken.note(key(study), False)
    assert len(taken._of_study) == 1000 and not taken.is_likely(key(0))
