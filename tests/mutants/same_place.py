"""Mutants of what tells the archive from another place under its address, and of listings that are no answer to what
was asked: rows of `mutations.Mutation`."""

from __future__ import annotations

TESTS = ("tests/unit/test_same_place.py",)
RACES = ("tests/unit/test_deletion_races.py",)
LISTINGS = ("tests/unit/test_listings_attacked.py",)
_CHECKPOINTS = "audit/checkpoints.py"
_IDENTITY, _STAGES = "archive/identity.py", "pipeline/stages.py"
_BUCKET, _FAST = "archive/stores/s3/bucket.py", "archive/stores/s3/fast_path.py"

SAME_PLACE: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    (
        "same place: asked before anything is recorded",
        _STAGES,
        "        require_identity(archive.store, archive.archive_id)\n",
        "",
        TESTS,
    ),
    (
        "same place: nothing left of a study",
        _STAGES,
        "        require_identity(archive.store, archive.archive_id)\n        if not manifest.revision:\n",
        "        if manifest.revision:\n            require_identity(archive.store, archive.archive_id)\n"
        "        if not manifest.revision:\n",
        TESTS,
    ),
    (
        "same place: it parks no study",
        _STAGES,
        "        require_identity(context.archive.store, context.archive.archive_id)\n",
        "",
        TESTS,
    ),
    (
        "same place: not before the stages either",
        _STAGES,
        "    try:\n        context.erased.require_none(claim.study_uid)\n        recorded = _archive",
        "    context.erased.require_none(claim.study_uid)\n    try:\n        recorded = _archive",
        TESTS,
    ),
    (
        "same place: its erasures",
        "pipeline/erased.py",
        "            if found is not None:\n                self._require_archive()",
        "            if found is not None:\n                pass",
        TESTS,
    ),
    (
        "same place: an erasure is asked for once",
        "pipeline/erased.py",
        "        self._note(erasure)\n        held, is_new",
        "        self._require_archive()\n        self._note(erasure)\n        held, is_new",
        TESTS,
    ),
    (
        "same place: its erasures meanwhile",
        "pipeline/erased.py",
        "number)\n                self._require_archive()\n",
        "number)\n",
        TESTS,
    ),
    (
        "same place: behind the catalogue",
        "pipeline/revision.py",
        "    require_identity(context.archive.store, context.archive.archive_id)",
        "    pass",
        TESTS,
    ),
    (
        "same place: one backoff",
        _IDENTITY,
        "endpoint=store.endpoint,",
        "endpoint=str(store.destination),",
        TESTS,
    ),
    (
        "same place: one backoff for a directory",
        "archive/stores/directory/store.py",
        "        return _ENDPOINT\n",
        "        return self.destination.endpoint\n",
        TESTS,
    ),
    (
        "same place: one backoff for a bucket",
        "archive/stores/s3/store.py",
        "        return self._bucket.endpoint\n",
        "        return self._destination.endpoint\n",
        TESTS,
    ),
    (
        "same place: nested too deeply to be read",
        _IDENTITY,
        "TypeError, RecursionError) as error",
        "TypeError) as error",
        TESTS,
    ),
    (
        "same place: a head of the audit chain",
        _CHECKPOINTS,
        "        self._require_archive()\n        self._published = published\n",
        "        self._published = published\n",
        TESTS,
    ),
    (
        "same place: another head of the audit chain",
        _CHECKPOINTS,
        "                self._require_archive()\n                self._published = newest\n",
        "                self._published = newest\n",
        TESTS,
    ),
    (
        "same place: a head that nobody can read",
        _CHECKPOINTS,
        "            self._require_archive()\n            self._found",
        "            self._found",
        TESTS,
    ),
    ("same place: nothing is no archive", _IDENTITY, "if held is None or held", "if held is not None and held", TESTS),
    (
        "same place: another archive",
        _IDENTITY,
        "if held is None or held.archive_id != archive_id:",
        "if held is None:",
        TESTS,
    ),
    (
        "same place: what is no identity stops no daemon",
        _IDENTITY,
        "    except (ArchiveRefused, Permanent) as error:",
        "    except Permanent as error:",
        TESTS,
    ),
    (
        "same place: a refusal parks no study",
        _IDENTITY,
        "    except (ArchiveRefused, Permanent) as error:",
        "    except ArchiveRefused as error:",
        TESTS,
    ),
    (
        "same place: in cold storage",
        _IDENTITY,
        "    except ColdObject:\n        return\n",
        "",
        TESTS,
    ),
    (
        "same place: a modality's originals",
        "pipeline/committing/judgement.py",
        "        require_identity(context.archive.store, context.archive.archive_id)",
        "        pass",
        TESTS,
    ),
    (
        "leases: of a cluster",
        "localfiles.py",
        "    return found in _SHARED or found in _OF_CLUSTERS\n",
        "    return found in _SHARED\n",
        RACES,
    ),
    ("same place: the record of deletions", "audit/sealing.py", "        self._require_archive()\n", "", TESTS),
    (
        "same place: of which archive the record is",
        "daemon/composition.py",
        "        require_archive = partial(require_identity, archive.store, archive.archive_id)\n",
        "        def require_archive() -> None: ...\n",
        TESTS,
    ),
    (
        "listings: of another prefix",
        _FAST,
        "            _require(asked, element.text)\n",
        "            pass\n",
        LISTINGS,
    ),
    (
        "listings: of another prefix, with versions",
        _FAST,
        '    _require(asked, values.get(tag("Prefix"), asked))\n',
        "",
        LISTINGS,
    ),
    (
        "listings: of another prefix, by botocore",
        _BUCKET,
        '        self._require_of(start, page, "ListObjectsV2")\n',
        "",
        LISTINGS,
    ),
    (
        "listings: of another key, where a look was refused",
        _BUCKET,
        '        if page.get("Prefix", full_key) != full_key:\n',
        "        if False:\n",
        ("tests/unit/test_refused_looks.py",),
    ),
    ("listings: without end", _BUCKET, "        if page.token == paging.token:\n", "        if False:\n", LISTINGS),
    (
        "listings: of another prefix, with versions, by botocore",
        _BUCKET,
        '        self._require_of(start, page, "ListObjectVersions")\n',
        "",
        LISTINGS,
    ),
)
