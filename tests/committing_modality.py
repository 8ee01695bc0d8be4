"""A modality that asks for storage commitment and listens for the report: pynetdicom, both ways (PS3.4 Annex J)."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance  # type: ignore[attr-defined]

from tests.system.receiving import free_port

Pair = tuple[str, str]


@dataclass
class Report:
    """``failed`` has the failure reason of each instance."""

    transaction_uid: str
    event_type: int
    committed: set[Pair]
    failed: dict[Pair, int]
    calling: str


@dataclass
class Modality:
    """``answers`` are the statuses that it gives to reports, one after the other, then 0."""

    receiver_port: int
    ae_title: str = "CT1"
    port: int = field(default_factory=free_port)
    answers: list[int] = field(default_factory=list)
    reports: queue.Queue[Report] = field(default_factory=queue.Queue)
    _server: Any = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def listen(self) -> None:
        application = AE(self.ae_title)
        application.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        application.add_supported_context("1.2.840.10008.1.1")
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        self._server = application.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_report(self, event: Any) -> tuple[int, None]:
        if self.answers and (status := self.answers.pop(0)):
            return status, None
        told = event.event_information
        self.reports.put(
            Report(
                str(told.TransactionUID),
                event.event_type,
                {_pair(one) for one in told.get("ReferencedSOPSequence", [])},
                {_pair(one): int(one.FailureReason) for one in told.get("FailedSOPSequence", [])},
                event.assoc.requestor.ae_title,
            )
        )
        return 0, None

    def store(self, files: Sequence[Path]) -> None:
        """C-STORE, each answered with Success."""
        data_sets = [pydicom.dcmread(path) for path in files]
        pairs = {(str(one.SOPClassUID), str(one.file_meta.TransferSyntaxUID)) for one in data_sets}
        association = self._associate([build_context(*pair) for pair in pairs])
        for one in data_sets:
            assert association.send_c_store(one).Status == 0
        association.release()

    def ask(self, instances: Iterable[Pair], *, action_type: int = 1, transaction_uid: str | None = None) -> int:
        """N-ACTION; the status that was answered. Raises AssertionError where commitment is not offered."""
        action = Dataset()
        action.TransactionUID = transaction_uid or generate_uid()
        action.ReferencedSOPSequence = [_item(one) for one in instances]
        association = self._associate([build_context(StorageCommitmentPushModel)])
        assert association.accepted_contexts, "storage commitment is not offered"
        status, _ = association.send_n_action(
            action, action_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        association.release()
        return int(status.Status)

    def report(self, seconds: float = 60) -> Report:
        return self.reports.get(timeout=seconds)

    def _associate(self, contexts: list[Any]) -> Any:
        application = AE(self.ae_title)
        association = application.associate("127.0.0.1", self.receiver_port, contexts=contexts, ae_title="ARCHIVE")
        assert not association.is_rejected and (association.is_established or association.acceptor.primitive)
        return association


def _pair(item: Dataset) -> Pair:
    return str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)


def _item(pair: Pair) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = pair
    return item
