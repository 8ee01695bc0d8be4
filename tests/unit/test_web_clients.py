"""How clients are told apart by their addresses, and how many connections each may have."""

from __future__ import annotations

import pytest

from dicomwatchd.web.clients import network_of, plain
from dicomwatchd.web.serving import Places


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3:4711", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("[::ffff:10.1.2.3]:80", "10.1.2.3"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("10.1.2.3:", "10.1.2.3:"),
        ("10.1.2.3.4", "10.1.2.3.4"),
        ("unknown", "unknown"),
        ("_hidden", "_hidden"),
        ("", ""),
    ],
)
def test_an_address_is_written_in_one_way(text: str, address: str) -> None:
    assert plain(text) == address


def test_one_network_of_ipv6_does_not_take_all_places() -> None:
    places = Places(20, 4, lambda address: address == "2001:db8::99", only_the_proxy=False)
    taken = [f"2001:db8::{number:x}" for number in range(1, 41)]
    assert [places.take(one) for one in taken] == [True] * 10 + [False] * 30
    assert places.take("2001:db8:0:1::1") and places.take("10.0.0.1") and places.take("2001:db8::99")
    for one in taken[:10]:
        places.leave(one)
    assert places.take(taken[0]) and network_of("10.0.0.1") is None
    for one in (taken[0], "2001:db8:0:1::1", "10.0.0.1", "2001:db8::99"):
        places.leave(one)
    assert not places.taken and not places.of_network
