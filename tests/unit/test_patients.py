"""Whether two files speak of two patients, and what of all they say is kept."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomwatchd.patients import (
    IDENTITIES_LIMIT,
    Identity,
    Order,
    are_different,
    distinct,
    document,
    folded_name,
    from_document,
    has_form,
    two_patients,
)

JANE = Identity("4711", "CLINIC", "DOE^JANE", "19700131", "F")

texts = st.text(alphabet="aB^= ,\ufffd0", max_size=6)
identities = st.builds(Identity, texts, texts, texts, st.sampled_from(["", "1970", "19700131", "19800101"]), texts)


@pytest.mark.parametrize(
    "other",
    [
        Identity(),
        Identity("4711"),
        Identity(name="DOE^JANE"),
        Identity(" 4711 ", "clinic", "doe^jane^^^", "1970.01.31", "M"),
        Identity("4711", "", "Doe, Jane", "", ""),
        Identity("4711", "CLINIC", "SMITH^JANE", "19700131", "F"),  # she has married
        Identity("4711", "CLINIC", "DOE^JANE", "19710131", "F"),  # a typing error
        Identity("", "", "SMITH^JANE", "19700131", "F"),
        Identity("", "", "DOE^JANE", "19800101", "F"),
        Identity("", "OTHER", "DOE^JANE", "19700131", "F"),  # of an ID that is not told
        Identity("4711", "CLINIC", "SMITH^JANE", "1970", "F"),
        Identity("4711", "CLINIC", "SMITH^JANE", "00000000", "F"),
        Identity("4711\0", "CLINIC", "", "19800101"),
    ],
)
def test_one_patient(other: Identity) -> None:
    assert not are_different(JANE, other)
    assert not are_different(other, JANE)


@pytest.mark.parametrize(
    "other",
    [
        Identity("4712", "CLINIC", "DOE^JANE", "19700131", "F"),
        Identity("4712"),
        Identity("4711", "ANOTHER CLINIC", "DOE^JANE", "19700131", "F"),
        Identity("", "", "SMITH^JANE", "19800101"),
        Identity("4711", "CLINIC", "SMITH^JANE", "19800101", "F"),
        Identity("4711", "", "SMITH^JOHN", "1971"),
    ],
)
def test_two_patients(other: Identity) -> None:
    assert are_different(JANE, other)
    assert are_different(other, JANE)
    assert two_patients([JANE, Identity(), other]) == (JANE, other)


def test_a_name_in_several_scripts_is_one_name() -> None:
    romanised = Identity(name="Wang^XiaoDong=王^小東", birth_date="19700101")
    another = Identity(name="Wang^Xiao Dong=王^小東", birth_date="19800101")
    assert not are_different(romanised, another)
    assert not are_different(romanised, Identity(name="=王^小東", birth_date="19800101"))
    assert are_different(romanised, Identity(name="=李^小東", birth_date="19800101"))
    assert not are_different(Identity(name="=王^小東", birth_date="1970"), Identity(name="Li^Na", birth_date="1980"))


def test_what_could_not_be_decoded_may_have_been_anything() -> None:
    born, otherwise = "19700101", "19800101"
    broken = Identity(name="M\ufffdller^J", birth_date=born)
    assert not are_different(broken, Identity(name="Müller^J", birth_date=otherwise))
    assert are_different(broken, Identity(name="Schmidt^J", birth_date=otherwise))
    assert not are_different(Identity("\ufffd\ufffd1"), Identity("ab1"))
    assert are_different(Identity("\ufffd\ufffd1"), Identity("ab2"))


def test_a_hostile_text_takes_no_time() -> None:
    one = Identity("\ufffda" * 32 + "b")
    began = time.monotonic()
    assert are_different(one, Identity("a" * 64))
    assert time.monotonic() - began < 10


@given(identities, identities)
def test_it_does_not_matter_which_comes_first(one: Identity, other: Identity) -> None:
    assert are_different(one, other) == are_different(other, one)
    assert not are_different(one, one)
    assert not are_different(one, Identity())


def test_nobody_is_two_patients_alone() -> None:
    assert two_patients([]) is None
    assert two_patients([JANE]) is None


@pytest.mark.parametrize(
    ("text", "pattern", "holds"),
    [
        ("doe jane", "doe*", True),
        ("doe jane", "*jane", True),
        ("doe jane", "d?e j*", True),
        ("doe jane", "doe", False),
        ("doe jane", "?oe jane?", False),
        ("", "*", True),
        ("", "?", False),
        ("ab", "*a?b", False),
        ("aaab", "*a?b", True),
        ("a.c", "a.c", True),
        ("abc", "a.c", False),
        ("[a]", "[a]", True),
    ],
)
def test_wildcards(text: str, pattern: str, holds: bool) -> None:
    assert has_form(text, pattern) is holds


@given(st.text("ab", max_size=9), st.text("ab*?", max_size=8))
def test_wildcards_mean_what_a_regular_expression_does(text: str, pattern: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(one, one) for one in pattern)
    assert has_form(text, pattern) is (re.fullmatch(expression, text) is not None)


def test_the_time_for_a_pattern_goes_with_the_length_of_the_text() -> None:
    """The form that makes whoever goes back to the last star begin anew at each character: to find that 20,000 are none
    took 2.6 s of such a one, and a search compares as many texts as the archive has."""
    text, pattern = "a" * 20_000, "*" + "a" * 255 + "b"
    tries = []
    for _ in range(3):
        began = time.thread_time()
        assert not has_form(text, pattern) and has_form(text + "b", pattern)
        tries.append(time.thread_time() - began)
    assert min(tries) < 0.5


def test_distinct_keeps_all_that_says_something_of_its_own() -> None:
    less, other = Identity(name="DOE^JANE"), Identity("4712", name="DOE^JANE")
    assert distinct([less, Identity()], [JANE, less, JANE, other]) == (JANE, other)
    assert distinct([JANE], [less, other]) == (JANE, other)
    assert distinct([Order("A1"), Order("A1", "RIS"), Order("A2")]) == (Order("A1", "RIS"), Order("A2"))
    many = [Identity(str(number)) for number in range(IDENTITIES_LIMIT + 5)]
    assert distinct(many) == tuple(many[:IDENTITIES_LIMIT])


def test_documents() -> None:
    assert document(Identity("1")) == {"patient_id": "1"}
    assert from_document(Identity, document(JANE)) == JANE
    assert from_document(Order, {"accession_number": "A", "of the future": "x"}) == Order("A")
    bad: object
    for bad in ([], {"patient_id": 1}, None):
        with pytest.raises(TypeError):
            from_document(Identity, bad)  # type: ignore[arg-type]


def test_a_name_in_another_form_is_the_same() -> None:
    """So that a birth date with a typing error is no other patient."""
    for name in ("Doe^Jane^^", "Doe, Jane", " doe jane"):
        assert not are_different(
            Identity(name="DOE^JANE", birth_date="19700101"), Identity(name=name, birth_date="1971")
        )


def test_one_letter_in_several_forms_of_unicode_is_one() -> None:
    composed, apart = "M\u00dcLLER", "MU\u0308LLER"
    assert not are_different(Identity(name=composed, birth_date="1970"), Identity(name=apart, birth_date="1980"))
    assert not are_different(Identity(patient_id=composed), Identity(patient_id=apart))
    assert folded_name("\uff94\uff8f\uff80\uff9e") == folded_name("\u30e4\u30de\u30c0"), "half and full width"
