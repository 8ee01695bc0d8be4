"""Somebody with a browser between dicomwatchd-web and its provider of OpenID Connect, and who is known there."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from tests.servers.oidc import CLIENT, SECRET, OidcProvider
from tests.system.web_process import WebProcess, site_with_archive

PAGE = {"Accept": "text/html"}
ACCOUNTS: dict[str, dict[str, object]] = {
    "mueller": {"preferred_username": "müller", "groups": ["radiology", "staff"]},
    "meier": {"preferred_username": "meier", "groups": ["radiology"]},
    "guest": {"preferred_username": "guest", "groups": ["visitors"]},
    "nameless": {"groups": ["radiology"]},
    "sly": {"preferred_username": "token:reader", "groups": ["radiology"]},
}


class Browser:
    """One with cookies, who follows redirects and fills in the provider's forms, as far as our own callback."""

    def __init__(self, web: WebProcess, ca_file: Path | None = None) -> None:
        self.web = web
        context = ssl.create_default_context(cafile=ca_file)
        self.http = httpx.Client(trust_env=False, timeout=60, headers=PAGE, verify=context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    def to_provider(self, after: str = "/") -> httpx.Response:
        return self.http.get(f"{self.web.url}/login/oidc", params={"next": after})

    def callback(self, account: str, after: str = "/") -> str:
        """The address that the provider sends the browser back to."""
        response = self.to_provider(after)
        for _ in range(12):
            if response.is_redirect:
                where = str(httpx.URL(str(response.url)).join(response.headers["location"]))
                if where.startswith(self.web.url):
                    return where
                response = self.http.get(where)
                continue
            assert response.status_code == 200, response.text
            prompt = re.search(r'name="prompt" value="(\w+)"', response.text)
            action = re.search(r'<form[^>]* action="([^"]+)"', response.text)
            assert prompt is not None and action is not None, response.text
            where = str(response.url.join(action[1]))
            response = self.http.post(where, data={"prompt": prompt[1], "login": account, "password": "any"})
        raise AssertionError("the provider does not come to an end")

    def log_out_at_provider(self, page: str) -> None:
        """From our page after a log-out there to the provider's, and what it asks, to its end."""
        response = self.http.get(page)
        form = re.search(r'<form[^>]* action="([^"]+)"', response.text)
        xsrf = re.search(r'name="xsrf" value="(\w+)"', response.text)
        assert form is not None and xsrf is not None, response.text
        ended = self.http.post(str(response.url.join(form[1])), data={"xsrf": xsrf[1], "logout": "yes"})
        assert ended.is_redirect, ended.text
        assert ended.headers["location"].startswith(f"{self.web.url}/login")

    def log_in(self, account: str, after: str = "/") -> httpx.Response:
        return self.http.get(self.callback(account, after))

    def status(self) -> int:
        """404: let in, where nothing is; 401: nobody."""
        return self.http.get(f"{self.web.url}/nowhere", headers={"Accept": "*/*"}).status_code


@contextmanager
def with_provider(root: Path, **settings: Any) -> Iterator[tuple[WebProcess, OidcProvider]]:
    """Both at work, without TLS; ``settings`` are others of ``web``."""
    web = WebProcess(site_with_archive(root))
    provider = OidcProvider(ACCOUNTS, [f"{web.url}/login/callback"])
    secret = root / "secret"
    secret.write_text(SECRET + "\n")
    oidc = {"issuer": provider.issuer, "client_id": CLIENT, "client_secret_file": str(secret)}
    web.settings |= {"oidc": oidc, **settings}
    try:
        provider.start()
        web.start()
        yield web, provider
    finally:
        web.close()
        provider.stop()
        web.site.close()
