"""Mutants of what a viewer may be shown, and of what keeps series objects out of the way: rows of
`mutations.Mutation`."""

from __future__ import annotations

_READER = ("tests/unit/test_series.py",)
_EXTRACTED = ("tests/unit/test_series_extracted.py",)
_DOCUMENTS = ("tests/unit/test_series_documents.py", "tests/unit/test_series.py")
_SENT = ("tests/unit/test_series_sent.py",)
_INDEXED = ("tests/unit/test_series_indexed.py",)

SERIES: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"series: {name}", file, old, new, tests)
    for name, file, old, new, tests in (
        (
            "a frame is compared",
            "series/contents.py",
            "                    if hashlib.sha256(raw).hexdigest() == frame.sha256:\n",
            "                    if raw:\n",
            _READER,
        ),
        (
            "a file is compared before its first byte is handed out",
            "series/contents.py",
            "    if size_bytes != source.item.size_bytes or digest.hexdigest() != source.item.sha256:\n",
            "    if size_bytes != source.item.size_bytes:\n",
            _READER,
        ),
        (
            "what is derived is of the bytes on record",
            "series/building.py",
            "        if found.sha256 == item.sha256 and found.size_bytes == source.item.size_bytes:\n",
            "        if found.size_bytes == source.item.size_bytes:\n",
            _READER,
        ),
        (
            "so it is in a bundle",
            "series/building.py",
            "            if (found.sha256, found.size_bytes) == (item.sha256, item.size_bytes):\n",
            "            if found.size_bytes == item.size_bytes:\n",
            _SENT,
        ),
        (
            "the UIDs are the manifest's",
            "series/objects.py",
            '    return all(_uid(entry, tag) in ("", uid) for tag, uid in said.items())\n',
            "    return bool(said)\n",
            _READER,
        ),
        (
            "one whose frames were wrong is not believed again",
            "series/reader.py",
            "            self._distrusted.add((study, series))\n",
            "",
            _READER,
        ),
        (
            "a damaged one is said to be",
            "series/standing.py",
            "    if item.damage:\n        return Standing.DAMAGED\n",
            "",
            _READER,
        ),
        (
            "one of several versions is said to be",
            "series/standing.py",
            "        return Standing.CONFLICTING\n",
            "        return Standing.SOUND\n",
            _READER,
        ),
        (
            "a damaged one is not shown where a whole one is",
            "series/shown.py",
            "    return one.standing is not Standing.DAMAGED, one.entry is not None,",
            "    return True, one.entry is not None,",
            _READER,
        ),
        (
            "a new revision is seen",
            "series/reader.py",
            "        if known is None or known.listing != listing or not listing:\n",
            "        if known is None:\n",
            _READER,
        ),
        (
            "nothing is written of what was erased",
            "series/objects.py",
            "    if newest is not None and revision <= newest.through_revision:\n        raise newest.error()\n",
            "",
            (*_READER, *_SENT),
        ),
        (
            "what could not be read is not tried at every turn",
            "series/reader.py",
            "        return cached.has_troubles and self._monotonic() - cached.made_at >= _TRIED_AGAIN_SECONDS\n",
            "        return cached.has_troubles\n",
            _READER,
        ),
        (
            "a native frame is as long as its rows and columns say",
            "series/pixels.py",
            "    if not frame_bytes or length_bytes < whole or (length_bytes - whole > 1 and said.frames > 1):\n",
            "    if not frame_bytes or length_bytes < whole:\n",
            _EXTRACTED,
        ),
        (
            "frames of bits that begin at no byte are not cut",
            "series/pixels.py",
            "    if bits % 8 and said.frames > 1:\n",
            "    if False:\n",
            _EXTRACTED,
        ),
        (
            "an offset table fits its fragments",
            "series/pixels.py",
            "        if begins == list(table) and len(table) == frames:\n",
            "        if begins:\n",
            _EXTRACTED,
        ),
        (
            "so does an extended one",
            "series/pixels.py",
            "    if offsets and _fits(offsets, lengths, fragments, frames):\n",
            "    if offsets:\n",
            _EXTRACTED,
        ),
        (
            "what goes by markers begins and ends with them",
            "series/pixels.py",
            "    if len(groups) == frames and all(\n",
            "    if groups or all(\n",
            _EXTRACTED,
        ),
        (
            "sequences end somewhere",
            "series/extract.py",
            "            if depth >= DEPTH_LIMIT:\n",
            "            if False:\n",
            _EXTRACTED,
        ),
        (
            "headers end somewhere",
            "series/extract.py",
            "                self._elements_left -= 1\n                if self._elements_left < 0:\n"
            "                    raise Unreadable(_TOO_MUCH)\n                raw",
            "                raw",
            _EXTRACTED,
        ),
        (
            "what a deflated one inflates to ends somewhere",
            "series/forward.py",
            "            if left < 0:\n",
            "            if False:\n",
            _EXTRACTED,
        ),
        (
            "pieces of a frame lie in its file",
            "series/document.py",
            "            length = checked.number(flat[at + 1], 1, end - offset)\n",
            "            length = flat[at + 1]\n",
            _DOCUMENTS,
        ),
        (
            "nothing is written before the study's end",
            "pipeline/stages.py",
            "        context.finished(recorded.manifest)\n",
            "        pass\n",
            _SENT,
        ),
        (
            "a fault is none of the file's",
            "series/sent.py",
            "        except Exception:  # noqa: BLE001  whatever is wrong with it, and with us: the file is archived\n",
            "        except DicomwatchdError:\n",
            _SENT,
        ),
        (
            "nor of the daemon's",
            "series/sent.py",
            "            except Exception as error:  # noqa: BLE001  a fault of ours must not end the daemon\n",
            "            except DicomwatchdError as error:\n",
            _SENT,
        ),
        (
            "no more CPU is taken than allowed",
            "series/sent.py",
            "            is_possible = data is not None and self._allowance.is_left()\n",
            "            is_possible = data is not None\n",
            _SENT,
        ),
        (
            "no more is kept than allowed",
            "series/sent.py",
            "                self._make_room()\n",
            "                pass\n",
            _SENT,
        ),
        (
            "verify takes them for none of its own",
            "archive/proof/verification.py",
            " or keys.parse_series_index(seen.key)",
            "",
            _INDEXED,
        ),
        (
            "archive verify counts them as derived",
            "archive/fixity/study.py",
            "            elif keys.parse_series_index(one.key) is not None:\n",
            "            elif False:\n",
            _INDEXED,
        ),
    )
)
