"""What the viewer's pages and scripts may do in the browser: ask this origin, and nobody else."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

_INLINE_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_ELSE: Final = (
    # What no other line is about. In Firefox that is what a page has fetched beforehand (rel=prefetch), as OHIF's does
    # with its parts; Chromium goes by the line that allows most.
    "default-src 'self'",
    "child-src 'none'",
    "frame-src 'none'",
    "connect-src 'self'",
    "font-src 'self'",
    # Pictures that the viewer draws itself: thumbnails, what is downloaded as an image.
    "img-src 'self' blob: data:",
    "manifest-src 'self'",
    "media-src 'self' blob:",
    "worker-src 'self' blob:",
    # React writes into style attributes, and packages of the viewer put style sheets into the page.
    "style-src 'self' 'unsafe-inline'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
    "object-src 'none'",
)


def of_page(page: bytes) -> str:
    """For an HTML page: scripts of this origin, and those that stand in it, by their hashes; no eval."""
    hashes = (hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(page))
    inline = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in dict.fromkeys(hashes)]
    return _policy(*inline)


def of_script() -> str:
    """For a script, which takes it for its own where it runs as a worker. The decoders of JPEG-LS and JPEG 2000 are
    WebAssembly whose bindings are made by `new Function`: without it these images stay black."""
    return _policy("'wasm-unsafe-eval'", "'unsafe-eval'")


def _policy(*scripts: str) -> str:
    return "; ".join((" ".join(("script-src 'self'", *scripts)), *_ELSE))
