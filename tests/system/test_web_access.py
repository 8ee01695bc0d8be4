"""Who gets in at dicomwatchd-web, and who does not: the real process, attacked over sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.system.web_process import WebProcess, site_with_archive

PAGE = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebProcess]:
    web = WebProcess(site_with_archive(tmp_path_factory.mktemp("web")))
    web.start()
    yield web
    web.close()
    web.site.close()


@pytest.fixture(scope="module")
def token(web: WebProcess) -> str:
    return web.token("reader", "read")


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_nobody_gets_nothing_but_the_way_to_log_in(web: WebProcess) -> None:
    with web.client() as client:
        assert client.get("/dicom-web/studies").status_code == 401
        page = client.get("/some/page?x=1", headers=PAGE)
        assert page.status_code == 303 and page.headers["location"] == "/login?next=/some/page%3Fx%3D1"
        assert client.get("/login").status_code == 200
        assert client.get("/health").text == "ok\n"


def test_a_token_lets_its_holder_in(web: WebProcess, token: str) -> None:
    with web.client(token) as client:
        assert client.get("/nowhere").status_code == 404


@pytest.mark.parametrize("said", ["Bearer", "Bearer dicomwatchd_forged", "Basic cmVhZGVyOnJlYWRlcg==", "x"])
def test_a_forged_token_lets_nobody_in(web: WebProcess, said: str) -> None:
    with web.client(headers={"Authorization": said}) as client:
        assert client.get("/nowhere").status_code == 401


def test_an_expired_token_lets_nobody_in(web: WebProcess) -> None:
    with web.client(web.token("expired", "read", expires_at=time.time() - 1)) as client:
        assert client.get("/nowhere").status_code == 401
