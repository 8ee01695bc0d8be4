"""What the configuration says under ``web``: closed unless somebody can log in, and never unencrypted in the open."""

from __future__ import annotations

from typing import Any

import pytest

from dicomwatchd.config import loading
from dicomwatchd.errors import ConfigError

ARCHIVE = {"store": {"kind": "directory", "path": "/a"}, "catalogue": {"kind": "sqlite", "path": "/a/c.db"}}
PROXY = {"addresses": ["10.1.2.3"]}
OIDC = {"issuer": "https://login.example.org", "client_id": "x", "client_secret_file": "/s"}
TLS = {"certificate_file": "/c", "key_file": "/k"}
READ = {"read": ["radiology"]}


def problems(**web: Any) -> dict[str, str]:
    try:
        loading.parse({"archive": ARCHIVE, "web": web})
    except ConfigError as error:
        return dict(error.problems)
    return {}


def test_it_is_off_and_on_loopback_unless_told() -> None:
    assert loading.parse({"archive": ARCHIVE}).web is None
    web = loading.parse({"archive": ARCHIVE, "web": {"tokens": True}}).web
    assert web is not None and web.address[0].is_loopback and web.origin == "http://127.0.0.1:8442"


@pytest.mark.parametrize(
    ("web", "where", "why"),
    [
        ({}, "web", "a way to log in"),
        ({"tokens": "yes"}, "web.tokens", "true or false"),
        ({"proxy": PROXY}, "web", "must have roles"),
        ({"oidc": OIDC, "roles": {}}, "web", "must have roles"),
        ({"tokens": True, "listen": "0.0.0.0:443"}, "web.public_url", "is missing"),
        ({"tokens": True, "listen": "0.0.0.0:443"}, "web.tls", "unencrypted"),
        ({"tokens": True, "listen": "localhost:443"}, "web.listen", "must be ADDRESS:PORT"),
        ({"tokens": True, "public_url": "http://images.example.org"}, "web.public_url", "must be https"),
        ({"tokens": True, "public_url": "https://images.example.org/archive"}, "web.public_url", "without a path"),
        ({"tokens": True, "public_url": "https://u:p@images.example.org"}, "web.public_url", "without a path"),
        ({"proxy": {"addresses": []}, "roles": READ}, "web.proxy.addresses", "must not be empty"),
        ({"proxy": {"addresses": ["127.0.0.1"]}, "roles": READ}, "web.proxy", "must have secret_file"),
        ({"proxy": {"addresses": ["::1"]}, "roles": READ}, "web.proxy", "must have secret_file"),
        ({"proxy": {"addresses": ["0.0.0.0/0"]}, "roles": READ}, "web.proxy", "must have secret_file"),
        ({"proxy": {**PROXY, "user_header": "Cookie"}, "roles": READ}, "web.proxy.user_header", "browsers send"),
        ({"proxy": {**PROXY, "user_header": "X User"}, "roles": READ}, "web.proxy.user_header", "name of a header"),
        (
            {"proxy": {**PROXY, "groups_header": "x-remote-user"}, "roles": READ},
            "web.proxy",
            "a header of its own",
        ),
        ({"oidc": {**OIDC, "issuer": "http://login.example.org"}, "roles": READ}, "web.oidc.issuer", "must be https"),
        ({"tokens": True, "sessions": {"idle": "2h", "longest": "1h"}}, "web.sessions", "no shorter"),
        ({"tokens": True, "sessions": {"idle": "1h", "longest": "8d"}}, "web.sessions", "at most 7d"),
        ({"tokens": True, "state": "web"}, "web.state", "absolute path"),
        ({"tokens": True, "nonsense": 1}, "web.nonsense", "is not a known key"),
    ],
)
def test_what_would_be_open_or_no_use_is_refused(web: dict[str, Any], where: str, why: str) -> None:
    assert why in problems(**web).get(where, ""), problems(**web)


@pytest.mark.parametrize(
    "web",
    [
        {"tokens": True, "listen": "0.0.0.0:8443", "public_url": "https://x.org", "tls": TLS},
        {"proxy": PROXY, "roles": READ, "listen": "0.0.0.0:8442", "public_url": "https://x.org"},
        {"proxy": {"addresses": ["127.0.0.1"], "secret_file": "/s"}, "roles": READ, "public_url": "https://x.org"},
        {"oidc": OIDC, "roles": {"read": ["*"]}, "public_url": "https://x.org"},
        {"oidc": {**OIDC, "issuer": "http://127.0.0.1:3000"}, "roles": READ},
    ],
)
def test_what_is_closed_enough_is_taken(web: dict[str, Any]) -> None:
    assert problems(**web) == {}


def test_no_port_is_given_twice_and_no_folder_lies_in_an_inbox() -> None:
    with pytest.raises(ConfigError) as refused:
        loading.parse(
            {
                "archive": ARCHIVE,
                "web": {"tokens": True, "listen": "127.0.0.1:9187", "state": "/in/web"},
                "metrics": {},
                "inboxes": [{"name": "ct", "path": "/in"}],
            }
        )
    found = dict(refused.value.problems)
    assert found["web.listen"] == "has the port of metrics" and "overlaps inboxes[0]" in found["web.state"]
