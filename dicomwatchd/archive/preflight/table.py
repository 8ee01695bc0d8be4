"""The catalogue's table on DynamoDB: whether it can be deleted by mistake, and brought back.

Neither is essential: the table can be made anew from the manifests, and a deletion takes the record of the moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dicomwatchd.archive.aws.questions import Unanswered, asked
from dicomwatchd.archive.preflight.wording import INIT, could_not_be_asked
from dicomwatchd.findings import Finding

PROTECTION = "catalogue: deletion protection"
RECOVERY = "catalogue: point-in-time recovery"


class TableChecks:
    """Each check raises foreign errors where there is no answer. ``is_amazon``: the service has both for sure."""

    def __init__(self, client: Any, table: str, *, is_amazon: bool) -> None:
        self._client, self._table = client, table
        self._worst = "bad" if is_amazon else "note"

    def all(self) -> Iterator[tuple[str, Callable[[], Finding]]]:
        """Each with what it is about."""
        yield PROTECTION, self.deletion_protection
        yield RECOVERY, self.recovery

    def deletion_protection(self) -> Finding:
        answer = asked("dynamodb:DescribeTable", lambda: self._client.describe_table(TableName=self._table)["Table"])
        if isinstance(answer, Unanswered):
            return could_not_be_asked(PROTECTION, [answer])
        said = None if answer is None else answer.get("DeletionProtectionEnabled")
        if said is None:
            return Finding(PROTECTION, "unknown", "the service does not say whether the table can be deleted")
        if said:
            return Finding(PROTECTION, "good", "the table cannot be deleted before that is switched off")
        return Finding(PROTECTION, self._worst, "one command, or one mistake, deletes the table", INIT)

    def recovery(self) -> Finding:
        def question() -> Any:
            answer = self._client.describe_continuous_backups(TableName=self._table)["ContinuousBackupsDescription"]
            return (answer.get("PointInTimeRecoveryDescription") or {}).get("PointInTimeRecoveryStatus")

        answer = asked("dynamodb:DescribeContinuousBackups", question)
        if isinstance(answer, Unanswered):
            return could_not_be_asked(RECOVERY, [answer])
        if answer == "ENABLED":
            return Finding(RECOVERY, "good", "the table can be brought back as it was at any second of the last days")
        return Finding(
            RECOVERY,
            self._worst,
            "is off: what is lost of the table has to be rebuilt from the manifests, which can take hours",
            INIT,
        )
