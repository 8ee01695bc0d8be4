"""Mutants of what is read out of an answer that refuses a look."""

from __future__ import annotations

LOOKS = ("tests/unit/test_refused_looks.py",)

CLOUD: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    (
        "a listing that is refused says nothing",
        "archive/s3_bucket.py",
        "            return False  # then the refusal is the answer",
        "            return True",
        LOOKS,
    ),
    (
        "what is listed is there, though refused",
        "archive/s3_bucket.py",
        'all(item.get("Key") != full_key for item',
        'all(item.get("Key") != full_key or True for item',
        LOOKS,
    ),
    (
        "another key with the same beginning",
        "archive/s3_bucket.py",
        'return all(item.get("Key") != full_key for item in page.get("Contents", []))',
        'return not page.get("Contents")',
        LOOKS,
    ),
    (
        "a listing knows no versions, for a head",
        "archive/s3_bucket.py",
        '403 and "VersionId" not in arguments and self',
        "403 and self",
        LOOKS,
    ),
    (
        "a listing knows no versions, for a read",
        "archive/s3.py",
        "403 and version_id is None and self._bucket.absent",
        "403 and self._bucket.absent",
        LOOKS,
    ),
    (
        "no look beyond the prefix",
        "archive/s3_bucket.py",
        "        if self.prefix:\n            return self.client.list",
        "        if not self.prefix:\n            return self.client.list",
        LOOKS,
    ),
)
