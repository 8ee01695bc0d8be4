"""The viewer's files over HTTP: those of the listing, with what the browser may do; and nothing else of the disk."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from dicomwatchd.errors import Misconfigured
from dicomwatchd.model import Uid
from dicomwatchd.web import viewer
from dicomwatchd.web.people import Person, Role
from dicomwatchd.web.viewer import routes
from tests.serving import served

HASHED = "app.bundle.0f6159c501addfe9.js"
DECODER = "37fa160cc3a47cfd.wasm"
PAGE = b"<!doctype html><script>window.PUBLIC_URL='/'</script><script src='/app-config.js'></script>"
SCRIPT = b"let a = 1;" * 100


def make(folder: Path) -> Path:
    files = {
        "index.html": PAGE,
        HASHED: SCRIPT,
        "app.bundle.css": b"a{}",
        DECODER: b"\0asm",
        "assets/favicon.ico": b"icon",
    }
    listed = {}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        compressed = name == HASHED
        if compressed:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
        listed[name] = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
            "gzip": compressed,
        }
    (folder / "viewer.json").write_text(json.dumps({"format": 1, "files": listed}))
    (folder / "not-listed.txt").write_text("secret")
    (folder.parent / "outside.txt").write_text("secret")
    return folder


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with served(_application(make(tmp_path / "viewer"))) as at:
        yield at


def language_of(request: Request) -> str:
    return request.headers.get("accept-language", "en")


def _application(folder: Path) -> ASGIApp:
    """A reader asks, or whoever says that he is none."""
    app = Router(routes(folder, language_of))

    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        roles = frozenset({Role.UPLOAD if (b"x-test-role", b"upload") in scope["headers"] else Role.READ})
        scope.setdefault("state", {})["person"] = Person("somebody", roles)
        await ExceptionMiddleware(app)(scope, receive, send)

    return known


def ask(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """As it is written: no client makes another path of it."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_a_hashed_file_comes_compressed_and_may_be_kept_for_ever(address: str) -> None:
    status, headers, body = ask(address, f"/{HASHED}", accept_encoding="br, gzip")
    assert (status, gzip.decompress(body)) == (200, SCRIPT)
    assert headers["content-encoding"] == "gzip" and headers["vary"] == "Accept-Encoding"
    assert headers["content-type"].startswith("text/javascript")
    assert headers["cache-control"] == "private, max-age=31536000, immutable"


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0", "gzip; q=0.0", "br"])
def test_who_takes_no_gzip_gets_the_bytes_as_they_are(address: str, accepted: str) -> None:
    status, headers, body = ask(address, f"/{HASHED}", accept_encoding=accepted)
    assert (status, body) == (200, SCRIPT) and "content-encoding" not in headers
    assert headers["vary"] == "Accept-Encoding"


def test_a_corrected_file_is_asked_for_again_whatever_its_name_says(tmp_path: Path) -> None:
    folder = make(tmp_path / "viewer")
    listing = json.loads((folder / "viewer.json").read_text())
    listing["files"][HASHED]["corrected"] = True
    (folder / "viewer.json").write_text(json.dumps(listing))
    with served(_application(folder)) as address:
        assert ask(address, f"/{HASHED}")[1]["cache-control"] == "no-cache"


def test_a_browser_asks_again_for_a_name_without_a_hash_and_is_told_that_it_has_it(address: str) -> None:
    _, headers, _ = ask(address, "/app.bundle.css")
    assert headers["cache-control"] == "no-cache"
    status, _, body = ask(address, "/app.bundle.css", if_none_match=headers["etag"])
    assert (status, body) == (304, b"")
    assert ask(address, "/app.bundle.css", if_none_match='"other"')[0] == 200


def test_the_forms_of_a_file_have_tags_of_their_own(address: str) -> None:
    plain, small = (ask(address, f"/{HASHED}", accept_encoding=one)[1]["etag"] for one in ("identity", "gzip"))
    assert plain != small
    assert ask(address, f"/{HASHED}", accept_encoding="gzip", if_none_match=plain)[0] == 200


def test_wasm_is_called_so(address: str) -> None:
    assert ask(address, f"/{DECODER}")[1]["content-type"] == "application/wasm"


def test_without_a_study_it_leads_to_the_search(address: str) -> None:
    status, headers, _ = ask(address, "/viewer")
    assert (status, headers["location"]) == (303, "/")


@pytest.mark.parametrize(
    "path", ["/viewer/?StudyInstanceUIDs=1", "/viewer?StudyInstanceUIDs=1.2.3", "/viewer/dicomweb?StudyInstanceUIDs=1"]
)
def test_a_link_into_the_viewer_is_its_page_under_a_strict_policy(address: str, path: str) -> None:
    status, headers, body = ask(address, path)
    assert (status, body) == (200, PAGE)
    policy = dict(one.split(" ", 1) for one in headers["content-security-policy"].split("; "))
    inline = base64.b64encode(hashlib.sha256(b"window.PUBLIC_URL='/'").digest()).decode()
    assert policy["script-src"] == f"'self' 'sha256-{inline}'"
    assert policy["object-src"] == policy["frame-src"] == policy["child-src"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == policy["default-src"] == "'self'"
    assert headers["cache-control"] == "no-cache" and headers["x-content-type-options"] == "nosniff"


def test_whoever_may_read_no_study_gets_no_viewer(address: str) -> None:
    assert ask(address, "/viewer", x_test_role="upload")[0] == 403


def test_a_studys_link_leads_to_the_page(address: str) -> None:
    path = viewer.address(Uid("1.2.840.99"))
    assert path == "/viewer?StudyInstanceUIDs=1.2.840.99" and ask(address, path)[0] == 200


def test_the_viewer_is_where_the_configuration_says_or_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert viewer.folder_of(tmp_path) == tmp_path
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert viewer.folder_of(None) is None
    usual = make(tmp_path / "share" / "dicomwatchd" / "viewer")
    assert viewer.folder_of(None) == usual


def test_a_worker_alone_may_make_functions_of_text(address: str) -> None:
    assert "'unsafe-eval'" in ask(address, f"/{HASHED}")[1]["content-security-policy"]
    assert "unsafe-eval" not in ask(address, "/viewer?StudyInstanceUIDs=1")[1]["content-security-policy"]


def test_no_address_of_another_host_stands_in_any_policy(address: str) -> None:
    for path in ("/viewer?StudyInstanceUIDs=1", f"/{HASHED}", "/app-config.js"):
        policy = ask(address, path)[1]["content-security-policy"]
        assert "http" not in policy and "*" not in policy and "//" not in policy


def test_the_settings_are_the_programs_own(address: str) -> None:
    status, headers, body = ask(address, "/app-config.js")
    assert (
        status == 200
        and headers["content-type"].startswith("text/javascript")
        and headers["cache-control"] == "no-cache"
    )
    assert b"wadoRoot: '/dicom-web'" in body and b"http:" not in body and b"https:" not in body
    assert b"investigationalUseDialog: { option: 'configure'" in body


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/index.html", "/viewer.json", "/not-listed.txt", "/../outside.txt", "/assets/../../outside.txt"),
        *(
            "/%2e%2e/outside.txt",
            "/assets/..%2f..%2foutside.txt",
            "//etc/passwd",
            f"/{HASHED}.gz",
            f"/{HASHED}/",
            "/assets",
        ),
        *("/assets/", "/viewerx", f"/./{HASHED}", "/assets/favicon.ico%00.js"),
    ],
)
def test_nothing_that_is_not_listed_is_handed_out(address: str, path: str) -> None:
    status, _, body = ask(address, path)
    assert status in (307, 400, 404) and b"secret" not in body and SCRIPT not in body


def test_nothing_can_be_written_there(address: str) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert ask(address, f"/{HASHED}", method)[0] in (404, 405)


def test_a_head_says_what_a_get_would(address: str) -> None:
    status, headers, body = ask(address, f"/{HASHED}", "HEAD")
    assert (status, body) == (200, b"") and headers["content-length"] == str(len(SCRIPT))


def test_a_folder_that_the_script_has_not_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<script src='https://public.example/'></script>")
    with pytest.raises(Misconfigured, match=r"viewer\.json"):
        routes(tmp_path, language_of)


@pytest.mark.parametrize("listing", ["", "[]", "{}", '{"format": 2, "files": {}}', '{"format": 1, "files": [1]}'])
def test_a_listing_of_another_format_is_refused(tmp_path: Path, listing: str) -> None:
    (tmp_path / "viewer.json").write_text(listing)
    with pytest.raises(Misconfigured):
        routes(tmp_path, language_of)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/passwd", "a/../../b", ".hidden", "a//b", ""])
def test_a_listing_cannot_name_what_lies_elsewhere(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "viewer")
    listing = json.loads((folder / "viewer.json").read_text())
    listing["files"][name] = {"sha256": "00", "size_bytes": 6, "gzip": False}
    (folder / "viewer.json").write_text(json.dumps(listing))
    with pytest.raises(Misconfigured):
        routes(folder, language_of)


def test_half_a_viewer_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "viewer")
    (folder / HASHED).write_bytes(SCRIPT[:10])
    with pytest.raises(Misconfigured, match="incomplete"):
        routes(folder, language_of)


def test_the_settings_say_in_which_language_somebody_reads(address: str) -> None:
    for language in ("en", "de"):
        status, headers, body = ask(address, "/app-config.js", accept_language=language)
        assert status == 200 and body.startswith(f'window.dicomwatchdLanguage = "{language}";\n'.encode())
        assert headers["cache-control"] == "no-cache" and headers["vary"] == "Accept-Language, Cookie"
        assert body.index(b"left-out") < body.index(b"window.config = ")
