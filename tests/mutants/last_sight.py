"""Mutants of the last look at the store once files are set aside: rows of `mutations.Mutation`."""

from __future__ import annotations

SIGHT = ("tests/unit/test_last_sight.py",)

LAST_SIGHT: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"last sight: {name}", file, old, new, SIGHT)
    for name, file, old, new in (
        (
            "it is asked",
            "pipeline/deletion/handful.py",
            "            why_not, gone = self._look()\n",
            "            why_not, gone = None, set[str]()\n",
        ),
        (
            "all of them are put back",
            "pipeline/deletion/handful.py",
            "                if why_not is None and self.sight.stops:\n",
            "                if False:\n",
        ),
        (
            "a store that does not answer",
            "pipeline/deletion/handful.py",
            "            return error, set()\n",
            "            return None, set()\n",
        ),
        (
            "what is taken back meanwhile",
            "pipeline/deletion/handful.py",
            "                    why_not = error\n            if",
            "                    pass\n            if",
        ),
        (
            "an object that went with its file",
            "pipeline/deletion/handful.py",
            " if one.key in still_gone else Itself()\n",
            "\n",
        ),
        (
            "an object that is lost is no file of ours",
            "pipeline/deletion/handful.py",
            " if one.key in still_gone else Itself()\n",
            " if False else Itself()\n",
        ),
        (
            "a look that others wait for",
            "pipeline/deletion/handful.py",
            "            while self._is_looking and not look.is_over:",
            "            while False:",
        ),
        (
            "what looks like the object is tried again",
            "pipeline/stages.py",
            "    due_at = context.clock.now() + OWN_AGAIN_SECONDS if looks_like_it else None\n",
            "    due_at = None\n",
        ),
        (
            "it is told",
            "pipeline/stages.py",
            "            _tell_of_vanished(sight, shipment, context)\n",
            "            pass\n",
        ),
        (
            "the study stops",
            "pipeline/stages.py",
            "        if sight.stops:\n            raise Vanished",
            "        if False:\n            raise Vanished",
        ),
        ("the size", "archive/proof/still_there.py", "seen.size_bytes == receipt.size_bytes and ", ""),
        ("the ETag", "archive/proof/still_there.py", "(not known or seen.etag in known)", "True"),
        (
            "the ETag that was seen",
            "pipeline/shipment.py",
            "        if etag is not None and (",
            "        if False and (",
        ),
        (
            "a listing is not the last word",
            "archive/proof/still_there.py",
            "    for key in going_on(sign, sorted(gone)):",
            "    for key in () if listing else sorted(gone):",
        ),
        (
            "asked twice",
            "archive/proof/still_there.py",
            "for _ in range(2))",
            "for _ in range(1))",
        ),
        (
            "the listing",
            "archive/proof/still_there.py",
            "        if receipt is not None and is_itself(store, receipt, seen):",
            "        if receipt is not None:",
        ),
        (
            "no request for each",
            "archive/proof/still_there.py",
            "    if listing:\n",
            "    if False:\n",
        ),
        (
            "changed meanwhile",
            "pipeline/deletion/proof.py",
            "    if identity(fd) != compared:",
            "    if False:",
        ),
        (
            "exchanged meanwhile",
            "pipeline/deletion/proof.py",
            "    if (found.st_dev, found.st_ino) != (compared.dev, compared.inode):",
            "    if False:",
        ),
        (
            "a program at the door meanwhile",
            "pipeline/deletion/proof.py",
            '    if leased and not lease_held(fd):\n        return "a program has begun to open it while',
            '    if False:\n        return "a program has begun to open it while',
        ),
        (
            "what is given up stays open",
            "pipeline/deletion/aside.py",
            "        self._left += self._taken()\n",
            "        super().forget()\n",
        ),
    )
)
