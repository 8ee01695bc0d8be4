"""Mutants of what proves an object that was sent in parts: rows of `mutations.Mutation`."""

from __future__ import annotations

TESTS = ("tests/unit/test_parts_proven.py", "tests/unit/test_local.py")
_S3 = "archive/stores/s3"

PARTS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"parts: {name}", file, old, new, TESTS)
    for name, file, old, new in (
        # -- what is composed
        (
            "each in their order",
            "archive/stores/etags.py",
            'bytes.fromhex("".join(of_parts))',
            'bytes.fromhex("".join(sorted(of_parts)))',
        ),
        (
            "an ETag that cannot be composed",
            "archive/stores/etags.py",
            " or not all(map(_OF_A_PART.match, of_parts))",
            "",
        ),
        ("of no parts", "archive/stores/etags.py", "    if not of_parts or not all", "    if not all"),
        ("how many", "archive/stores/etags.py", 'f"{digest.hexdigest()}-{len(of_parts)}"', 'f"{digest.hexdigest()}-1"'),
        # -- the answer to a completion
        (
            "the completion's ETag follows from the parts'",
            f"{_S3}/parts.py",
            "    return etag if etag == etags.composed([part.etag for part in parts]) else None",
            "    return etag",
        ),
        (
            "each part was compared",
            f"{_S3}/parts.py",
            "    if not all(part.is_compared for part in parts):",
            "    if False:",
        ),
        (
            "where ETags follow the parts",
            f"{_S3}/multipart.py",
            "means.by_etags and means.bears_out(",
            "means.bears_out(",
        ),
        (
            "each answer bears it out",
            f"{_S3}/multipart.py",
            'means.by_etags and means.bears_out(digests, response.get("ChecksumSHA256"))',
            "means.by_etags",
        ),
        ("an echo where there are echoes", f"{_S3}/parts.py", " or (echo is None and self.with_checksums)", ""),
        ("the echo is ours", f"{_S3}/parts.py", "return echo in (None, _base64(digests.sha256))", "return True"),
        (
            "a part has its SHA-256 where no MD5 goes with it",
            f"{_S3}/parts.py",
            "sha256=not self.with_md5)",
            "sha256=False)",
        ),
        (
            "a part has its MD5 where nothing else is shown",
            f"{_S3}/parts.py",
            "return Digests.of(data, md5=self.with_md5,",
            "return Digests.of(data, md5=False,",
        ),
        (
            "checksums where the store keeps them",
            f"{_S3}/parts.py",
            "        if self.with_checksums and digests.sha256 is not None:",
            "        if False:",
        ),
        # -- what this process has not sent
        (
            "what is there is computed here",
            f"{_S3}/parts.py",
            "return Digests.of(data, md5=True, sha256=self.with_checksums)",
            "return self.digests(data)",
        ),
        ("parts found there", f"{_S3}/multipart.py", "means.for_parts_found_there() if known else means", "means"),
        (
            "their ETag is ours",
            f"{_S3}/parts.py",
            "return digests.md5 is not None and self.etag == digests.md5.hex()",
            "return True",
        ),
        ("their checksum is ours", f"{_S3}/parts.py", "return self.sha256 == _base64(digests.sha256)", "return True"),
        # -- what was hashed before
        (
            "botocore signs nothing that was not compared",
            f"{_S3}/multipart.py",
            "        if not is_of_data and hashlib",
            "        if False and hashlib",
        ),
        (
            "what is sent is hashed where it was not before",
            f"{_S3}/multipart.py",
            "            if worked_out is None and sha256.hexdigest() != content.digest.sha256:",
            "            if False:",
        ),
        (
            "the very pieces",
            f"{_S3}/multipart.py",
            " or digest.pieces.piece_bytes != part_bytes:",
            ":",
        ),
        (
            "only parts that are compared",
            f"{_S3}/multipart.py",
            "_of_pieces(content.digest, part_bytes) if not means.with_md5 else None",
            "_of_pieces(content.digest, part_bytes)",
        ),
        (
            "pieces where they are of use",
            f"{_S3}/multipart.py",
            "        return None if self._means().with_md5 else part_size",
            "        return part_size",
        ),
        (
            "it is what was worked out that is signed",
            f"{_S3}/multipart.py",
            "            sha256 = digests.sha256.hex() if digests.sha256 is not None else None\n",
            "            sha256 = hashlib.sha256(data).hexdigest()\n",
        ),
        (
            "pieces of the file's own bytes",
            "filebytes.py",
            "            if offset % piece_bytes == 0:\n",
            "            if not offset:\n",
        ),
        # -- the probe
        (
            "the probe: a part that is compared",
            f"{_S3}/probe.py",
            "etag_follows=follows and altered and is_as_sent,",
            "etag_follows=follows and is_as_sent,",
        ),
        (
            "the probe: as parts are sent",
            f"{_S3}/probe.py",
            "etag_follows=follows and altered and is_as_sent,",
            "etag_follows=follows and altered,",
        ),
        (
            "the probe: an answer that names it",
            f"{_S3}/probe.py",
            '(checksum and part.get("ChecksumSHA256") == _sha256(data))',
            "checksum",
        ),
        (
            "the probe: a checksum that is kept",
            f"{_S3}/probe.py",
            '(checksum and part.get("ChecksumSHA256") == _sha256(data))',
            '(part.get("ChecksumSHA256") == _sha256(data))',
        ),
        ("the probe: the same everywhere", f"{_S3}/probe.py", "shown == [of_part] * 3", "of_part in shown"),
        ("the probe: an ETag that can be composed", f"{_S3}/probe.py", "of_part is not None and shown", "shown"),
        (
            "the probe: other bytes have another",
            f"{_S3}/probe.py",
            "len({first_etag, part_etag, other_etag}) == 3",
            "len({first_etag, part_etag}) == 2",
        ),
        (
            "the probe: it is the replaced part's ETag that is refused",
            f"{_S3}/probe.py",
            "lambda: self._complete(upload_id, first_etag, data, checked)",
            'lambda: self._complete(upload_id, "0" * 32, data, checked)',
        ),
    )
)
