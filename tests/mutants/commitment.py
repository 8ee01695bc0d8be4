"""Mutants of Storage Commitment: a modality deletes on that word. Rows of `mutations.Mutation`."""

from __future__ import annotations

UNIT = ("tests/unit/test_commitment.py", "tests/unit/test_commitment_attacked.py")

_JUDGEMENT, _ROUNDS, _RECEIVED = (
    "pipeline/committing/judgement.py",
    "pipeline/committing/rounds.py",
    "queue/received.py",
)

COMMITMENT: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = tuple(
    (f"commitment: {name}", file, old, new, UNIT)
    for name, file, old, new in (
        ("what lies there unseen", _JUDGEMENT, "if names.keys() - {", "if set() - {"),
        ("another file in its place", _JUDGEMENT, "names[file.name] != file.identity", "False"),
        (
            "evidence too old to be told",
            _ROUNDS,
            "isinstance(verdict, Committed) and not 0 <= now - verdict.asked_at <= longest",
            "False",
        ),
        ("what is on its way", _JUDGEMENT, "if file.state not in (FileState.KEPT, None):", "if False:"),
        ("what was never sent", _JUDGEMENT, "        if file.sha256 is None:", "        if False:"),
        ("in quarantine", _JUDGEMENT, "FileState.QUARANTINED, FileState.IGNORED", "FileState.IGNORED"),
        ("never heard of", _JUDGEMENT, "return contents or Reason.NO_SUCH_INSTANCE", "return contents"),
        ("an inbox exchanged", _JUDGEMENT, "if self._context.is_exchanged(self._source):", "if False:"),
        ("erased", _JUDGEMENT, "            context.erased.require_none(study)\n", "            pass\n"),
        ("objects that end", _JUDGEMENT, "if context.stops_deleting() is not None:", "if False:"),
        (
            "a catalogue that is behind",
            _JUDGEMENT,
            "            record is None\n            or manifest",
            "            manifest",
        ),
        ("two patients", _JUDGEMENT, "        if held.is_held(recorded, context):", "        if False:"),
        ("several versions", _JUDGEMENT, " if content[0] not in by_versions", ""),
        ("a damaged copy", _JUDGEMENT, "            if item.damage:", "            if False:"),
        ("what the store shows", _JUDGEMENT, "            if verdict.holds:\n", "            if True:\n"),
        ("every content", _JUDGEMENT, "    if Open.WAITS in verdicts:", "    if verdicts[0] is Open.WAITS:"),
        ("its SOP class", _JUDGEMENT, "if any(sop_class != one.sop_class_uid", "if any(sop_class == '?'"),
        (
            "nothing but a damaged copy",
            _JUDGEMENT,
            "    if not verdicts:\n        return Reason.PROC",
            "    if not verdicts:\n        return Committed(0) or Reason.PROC",
        ),
        (
            "all of a request",
            _ROUNDS,
            "if (waits and not is_over) or",
            "if (len(waits) == len(request.references) and not is_over) or",
        ),
        (
            "what cannot be told has failed",
            _ROUNDS,
            "                failed[index] = Reason.PROCESSING_FAILURE",
            "                pass",
        ),
        ("an old result", _ROUNDS, "return 0 <= age <= min(", "return 0 <= age < math.inf or bool("),
        ("a result of the future", _ROUNDS, "return 0 <= age <= min(", "return age <= min("),
        ("the age of the evidence", _ROUNDS, "judged_at = min(judged_at, asked_at)", "pass"),
        ("reported is over", _ROUNDS, "is_over = Kind.REPORTED in kinds or", "is_over ="),
        (
            "other names of an instance",
            _RECEIVED,
            '("name = ?", "name >= ? AND name < ?", "name',
            '("name = ?", "name = ? AND name < ?", "name',
        ),
        ("known for a while", _RECEIVED, "WHERE gone_at {} LIMIT ?", "WHERE gone_at {} AND 0 LIMIT ?"),
    )
)
