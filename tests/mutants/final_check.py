"""Mutants of the last look at the store once files are staged: rows of `mutations.Mutation`."""

from __future__ import annotations

FINAL_CHECK = ("tests/unit/test_final_check.py",)

LAST_SIGHT: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"final check: {name}", file, old, new, FINAL_CHECK)
    for name, file, old, new in (
        (
            "it is asked",
            "pipeline/deletion/batch.py",
            "            why_not, gone = self._ask_store()\n",
            "            why_not, gone = None, set[str]()\n",
        ),
        (
            "all of them are put back",
            "pipeline/deletion/batch.py",
            "                if why_not is None and self.services.final_check.stops:\n",
            "                if False:\n",
        ),
        (
            "a store that does not answer",
            "pipeline/deletion/batch.py",
            "            return error, set()\n",
            "            return None, set()\n",
        ),
        (
            "what is taken back meanwhile",
            "pipeline/deletion/batch.py",
            "                    why_not = error\n            if",
            "                    pass\n            if",
        ),
        (
            "an object that went with its file",
            "pipeline/deletion/batch.py",
            " if one.key in still_gone else Itself()\n",
            "\n",
        ),
        (
            "an object that is lost is no file of ours",
            "pipeline/deletion/batch.py",
            " if one.key in still_gone else Itself()\n",
            " if False else Itself()\n",
        ),
        (
            "a look that others wait for",
            "pipeline/deletion/final_check.py",
            "            while self._is_asking and not check.is_over:",
            "            while False:",
        ),
        (
            "what looks like the object is tried again",
            "pipeline/deletion/keeping.py",
            "    due_at = context.clock.now() + OWN_AGAIN_SECONDS if may_be_own else None\n",
            "    due_at = None\n",
        ),
        (
            "an object that is withheld",
            "archive/proof/final_check.py",
            "    if seen is not None and seen.is_withheld:",
            "    if False:",
        ),
        (
            "it is told",
            "pipeline/stages.py",
            "            keeping.log_vanished(services.final_check, shipment, context)\n",
            "            pass\n",
        ),
        (
            "the study stops",
            "pipeline/stages.py",
            "        if services.final_check.stops:\n            raise Vanished",
            "        if False:\n            raise Vanished",
        ),
        ("the size", "archive/proof/final_check.py", "seen.size_bytes == receipt.size_bytes and ", ""),
        ("the ETag", "archive/proof/final_check.py", "(not known or seen.etag in known)", "True"),
        (
            "the ETag that was seen",
            "pipeline/shipment.py",
            "        if etag is not None and (",
            "        if False and (",
        ),
        (
            "a listing is not the last word",
            "archive/proof/final_check.py",
            "    for key in until_cancelled(cancelled, sorted(gone)):",
            "    for key in () if listing else sorted(gone):",
        ),
        (
            "asked twice",
            "archive/proof/final_check.py",
            "for _ in range(2))",
            "for _ in range(1))",
        ),
        (
            "the listing",
            "archive/proof/final_check.py",
            "        if receipt is not None and is_itself(store, receipt, seen):",
            "        if receipt is not None:",
        ),
        (
            "no request for each",
            "archive/proof/final_check.py",
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
            '    if leased and not lease_held(fd):\n        return "a program started to open it while',
            '    if False:\n        return "a program started to open it while',
        ),
        (
            "what is given up stays open",
            "pipeline/deletion/staging/staged.py",
            "        self._left += self._taken()\n",
            "        super().forget()\n",
        ),
    )
)
