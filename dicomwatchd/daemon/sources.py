"""The folders that files come from: which there are, whose intake scans each, and what the plan says of its files."""

from __future__ import annotations

from collections.abc import Callable

from dicomwatchd.daemon.plan import Plan
from dicomwatchd.intake.inbox import InboxIntake
from dicomwatchd.pipeline.shipment import AfterArchive
from dicomwatchd.queue.rows import Source
from dicomwatchd.uploads.jobs import UploadJobs


class Sources:
    """The inboxes of the plan, the uploads under way, and former paths of inboxes, where files may still be staged.
    ``uploads`` are asked for when they are needed: they are built later."""

    def __init__(self, plan: Plan, uploads: Callable[[], UploadJobs]) -> None:
        self.plan = plan
        self._uploads = uploads
        self.by_id: dict[int, Source] = {}
        #: Those of the plan, in its order.
        self.inboxes: list[Source] = []
        #: Those of the inboxes, by the source's id.
        self.intakes: dict[int, InboxIntake] = {}

    # -- who scans them ---------------------------------------------------------------------------------------------

    def every_intake(self) -> list[InboxIntake]:
        """Those of the inboxes, and those of the uploads under way."""
        uploads = self._uploads()
        of_uploads = (uploads.intake_of(source_id) for source_id in sorted(uploads.sources()))
        return [*self.intakes.values(), *(intake for intake in of_uploads if intake is not None)]

    def watched_intakes(self) -> list[InboxIntake]:
        """Those of the inboxes whose file events say where to look first."""
        pairs = zip(self.intakes.values(), self.plan.inboxes, strict=True)
        return [intake for intake, inbox in pairs if inbox.by_events]

    @property
    def at_rest(self) -> bool:
        """Every inbox was looked at whole, and nothing in them is still settling."""
        return all(intake.available and intake.at_rest for intake in self.intakes.values())

    @property
    def saw_everything(self) -> bool:
        """No inbox has a directory that the daemon could not read."""
        return all(intake.saw_everything for intake in self.intakes.values())

    def rescan(self, source_id: int, directory: bytes) -> None:
        """A name in this directory may stand for something new."""
        if intake := self._intake_of(source_id):
            intake.hint(directory, alone=True)

    def left_staged(self, source_id: int) -> None:
        """A file that was staged in this source could not be put back."""
        if intake := self._intake_of(source_id):
            intake.recover_soon()

    def is_scanned(self, source_id: int) -> bool:
        return self._intake_of(source_id) is not None

    def _intake_of(self, source_id: int) -> InboxIntake | None:
        return self.intakes.get(source_id) or self._uploads().intake_of(source_id)

    # -- the rules of their files -----------------------------------------------------------------------------------

    def after_archive(self, source: Source) -> AfterArchive:
        """What the plan says of this source's files; those of an inbox that is in no plan any more stay."""
        if source.kind == "upload":
            return AfterArchive(delete=self._uploads().deletes(source))
        inbox = self.plan.inbox(source.name)
        return AfterArchive(delete=False) if inbox is None else inbox.after_archive

    def sends_early(self, source: Source) -> bool:
        """Whether files of this source are sent while their study still arrives."""
        inbox = self.plan.inbox(source.name)
        return inbox is None or inbox.sends_early
