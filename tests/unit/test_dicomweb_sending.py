"""Answers of many data sets: what the one before had as well is not written again, and nothing is taken for it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from dicomwatchd.model import DicomJson
from dicomwatchd.web.dicomweb.sending import as_array

_TAGS = st.sampled_from(["00080005", "00100010", "00280010", "7FE00010"])
_VALUES = st.text(max_size=8) | st.integers() | st.none()
_ELEMENTS = st.fixed_dictionaries({"vr": st.sampled_from(["LO", "US"]), "Value": st.lists(_VALUES, max_size=3)})


@given(st.lists(st.dictionaries(_TAGS, st.integers(0, 3), max_size=4), max_size=8), st.lists(_ELEMENTS, min_size=4))
def test_it_is_what_the_encoder_makes_of_it(items: list[dict[str, int]], pool: list[dict[str, object]]) -> None:
    """Elements that are one object in several data sets, alike in some, and gone as soon as they are written."""

    def made() -> Iterator[DicomJson]:
        for item in items:
            yield {tag: pool[number] if number else dict(pool[0]) for tag, number in item.items()}

    assert json.loads(b"".join(as_array(made()))) == list(made())


def test_nothing_of_it_is_markup() -> None:
    shared: dict[str, object] = {"vr": "LO", "Value": ["</script><b>"]}
    text = b"".join(as_array([{"00081030": shared}, {"00081030": shared}])).decode()
    assert "<" not in text
    assert json.loads(text)[1]["00081030"]["Value"] == ["</script><b>"]
