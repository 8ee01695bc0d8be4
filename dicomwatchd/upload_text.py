"""What an upload's result means for somebody who wonders whether the CD may go back to the patient."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from dicomwatchd.plain_text import clean
from dicomwatchd.plain_text import count as counted

_LISTED_FAILURES = 20
_LISTED_NOT_OPENED = 5
_LISTED_GAPS = 5
#: What may be said of the local copies for so long only.
_DELETABLE = ("deletable", "images_deletable")
#: How long after the end of an upload its word is still told as one of now: what a proof may be old.
_HOLDS_SECONDS = 900.0


def as_of_now(result: dict[str, Any]) -> dict[str, Any]:
    """A result that is told again later. Nobody has looked since at what has come to the folder, or become of the
    archive: that the local copies may be deleted was true at its end, and is not said for now."""
    ended_at = result.get("ended_at")
    said = [name for name in _DELETABLE if result.get(name) is True]
    if not said or not isinstance(ended_at, str):
        return result
    unsaid = result | dict.fromkeys(said, False)
    try:
        age_seconds = time.time() - datetime.fromisoformat(ended_at).timestamp()
    except ValueError:
        return unsaid
    return result if abs(age_seconds) <= _HOLDS_SECONDS else unsaid


def all_verified(result: dict[str, Any]) -> bool:
    """Whether the daemon says that everything in the folder was seen and every single file is verified, and does not
    contradict itself. No file at all is no success.

    A DICOMDIR is a table of contents and no file to archive, and neither is what is not DICOM: both are counted as
    ignored. An image that a DICOMDIR lists, and that is neither in the folder nor in the archive, is a failure.
    """
    files, verified, ignored = (_number(result, name) for name in ("files", "verified", "ignored"))
    return (
        result.get("done") is True
        and result.get("complete") is True
        and verified > 0
        and verified + ignored == files
        and not result.get("failed")
        and not result.get("failed_files")
        and not _number(_dicomdir(result), "missing")
    )


def asker(result: dict[str, Any]) -> str | None:
    """Who has handed the folder in; None where that is not on record."""
    found = result.get("asked_by")
    if not isinstance(found, dict):
        return None
    return clean(found.get("login")) or f"user {found.get('uid')}"


def sentences(result: dict[str, Any], *, delete: bool) -> list[str]:
    """The result in plain words. That something may be deleted is said of what is `all_verified` only."""
    files = _number(result, "files") - _number(result, "ignored")
    verified, deleted = _number(result, "verified"), _number(result, "deleted")
    if not result.get("done"):
        return _under_way(result, files, verified)
    if result.get("outcome") == "cancelled":
        return [
            f"The upload was cancelled. {verified:,} of the {counted(files, 'file')} found until then "
            f"{_are(verified)} verified in the archive and will stay there.",
            _fate(deleted),
            "Do not delete what is left: the archive may not hold all of it.",
        ]
    if all_verified(result):
        return _all_is_there(result, files, deleted, delete=delete)
    failed, count = list(result.get("failed") or []), _number(result, "failed_files")
    if files == 0 and not failed and not count and result.get("outcome") != "vanished":
        return [
            "The folder holds no file that can be archived. Nothing was archived and nothing was deleted.",
            *_left_alone(result),
        ]
    lines = []
    if result.get("outcome") == "vanished":
        lines.append(
            "The folder disappeared (medium ejected, unmounted or removed?) and did not come back in time; the upload"
            " has ended. Upload it again when it is back."
        )
    lines.append(f"{verified:,} of {counted(files, 'file')} {_are(verified)} verified in the archive.")
    if failed:
        lines.append("Not archived, damaged, or changed since:")
    for item in failed[:_LISTED_FAILURES]:
        name = clean(item.get("name")) or "the folder itself"
        lines.append(f"  {name}: {clean(item.get('reason'))}")
    if (rest := max(count, len(failed)) - min(len(failed), _LISTED_FAILURES)) > 0:
        more = "all of them" if len(failed) >= count else f"{len(failed):,} of them"
        lines.append(f"  ... and {rest:,} more; --json lists {more}")
    lines += _list_is_short(result)
    lines.append(_fate(deleted))
    lines += _held(result)
    lines += _not_yours(result)
    lines += _left_alone(result)
    lines += _studies(result, is_whole=False)
    if (expires := result.get("expires")) and not failed and not count:
        lines.append(f"Do not delete what is left: {clean(expires)}.")
    else:
        lines.append("Do not delete what is left: the archive does not hold all of it.")
    return lines


def _under_way(result: dict[str, Any], files: int, verified: int) -> list[str]:
    if result.get("phase") == "cancelling":
        return [
            "The upload is being cancelled: deletions in progress are finished, and nothing new is started.",
            "Do not delete anything yet. `dicomwatchctl upload show` says when it has ended.",
        ]
    lines = [
        f"The daemon is archiving the folder; so far {verified:,} of {counted(files, 'file')} "
        f"{_are(verified)} verified in the archive.",
        "Do not delete anything yet. Run the same command with --wait to wait until all are verified.",
    ]
    if result.get("phase") == "waiting for the folder":
        lines.insert(
            1, "The folder is missing at the moment; if it does not come back within 10 minutes, the upload ends."
        )
    return lines


def _all_is_there(result: dict[str, Any], files: int, deleted: int, *, delete: bool) -> list[str]:
    if deleted >= files:
        fate = "The local copies were deleted."
    elif delete or deleted:
        fate = f"{deleted:,} of the local copies were deleted; the others are still there."
    else:
        fate = _unchanged(result)
    lines = [f"{_whole(result, files)} {fate}"]
    lines += _held(result)
    lines += _not_yours(result)
    lines += _left_alone(result)
    lines += _list_is_silent(result)
    if _number(result, "ignored") > _number(result, "not_dicom"):
        lines.append("The DICOMDIR, which only lists the other files, is still there.")
    return [*lines, *_studies(result, is_whole=True)]


def _whole(result: dict[str, Any], files: int) -> str:
    """That all is there, by the medium's own list where it has one."""
    listed = _listed(result)
    before = _number(_dicomdir(result), "archived_before")
    if listed is not None and not before and _number(_dicomdir(result), "images") == files:
        which = "The one image is" if files == 1 else f"All {listed.removeprefix('the ')} are"
        return f"{which} verified in the archive, as the disc's own list (DICOMDIR) has them."
    whole = "The one file is" if files == 1 else f"All {files:,} files are"
    if listed is None:
        return f"{whole} verified in the archive."
    if not before:
        return f"{whole} verified in the archive, among them {listed} on the disc's own list (DICOMDIR)."
    return (
        f"{whole} verified in the archive. Of {listed} on the disc's own list (DICOMDIR), {before:,} {_are(before)} no"
        " longer in the folder, and already in the archive."
    )


def _unchanged(result: dict[str, Any]) -> str:
    """Of a folder in which nothing was to be deleted."""
    is_deletable = result.get("images_deletable", result.get("deletable")) is True
    if result.get("disc_image"):
        unchanged = "The disc image was not changed."
        if is_deletable:
            return f"{unchanged} It is no longer needed for these images."
    elif result.get("read_only"):
        unchanged = "The medium is read-only: nothing on it was changed or deleted."
        if is_deletable:
            return f"{unchanged} It is no longer needed for these images."
    elif is_deletable:
        others = _number(result, "not_dicom")
        which = "the local copies of the archived files" if others else "the local copies"
        return f"The folder was not changed; {which} may now be deleted."
    elif _number(result, "held"):
        return "The folder was not changed. Do not delete it yet."
    else:
        unchanged = "The folder was not changed."
    if ended_at := clean(result.get("ended_at")):
        unchanged += (
            f" This was the state at {ended_at}, when the upload ended; later changes in the folder were not"
            " checked. Before you delete anything, upload it again."
        )
    return unchanged


def _left_alone(result: dict[str, Any]) -> list[str]:
    """What is not DICOM, and so in no archive."""
    if not (count := _number(result, "not_dicom")):
        return []
    which = "1 other file" if count == 1 else f"{count:,} other files"
    lines = [
        f"{which} {_are(count)} not DICOM (a viewer, a text, a picture or the like) and {_were(count)} left alone:"
        f" {'it is' if count == 1 else 'they are'} not in the archive."
    ]
    names = list(result.get("not_opened") or [])
    if names and not result.get("failed_files"):
        some = ", ".join(clean(name) for name in names[:_LISTED_NOT_OPENED])
        rest = f" and {len(names) - _LISTED_NOT_OPENED:,} more" if len(names) > _LISTED_NOT_OPENED else ""
        lines.append(
            f"Not opened, although there may be images in {'it' if len(names) == 1 else 'them'}: {some}{rest}."
            " The disc's own list names no image there."
        )
    return lines


def _studies(result: dict[str, Any], *, is_whole: bool) -> list[str]:
    """Whether images of the studies are missing, as far as the images themselves tell. Of a folder that ``is_whole`` in
    the archive; of another, what is missing may be what has failed."""
    found = result.get("studies")
    if not isinstance(found, dict):
        return []
    lacking, unknown = _number(found, "gaps"), _number(found, "not_known")
    complete, without = _number(found, "complete"), _number(found, "no_sign_of_a_gap")
    total, listed = lacking + unknown + complete + without, _number(result.get("dicomdir") or {}, "studies")

    def which(number: int) -> str:
        if number == total:
            return "the study" if number == 1 else f"the {number:,} studies"
        return f"{number:,} of the {total:,} studies"

    lines = []
    if lacking:
        where = "in the archive" if not is_whole else "in the archive, and were not in the folder"
        lines.append(f"Images of {which(lacking)} are missing {where}. Ask whoever made the folder or disc for them:")
        for study in list(found.get("with_gaps") or [])[:_LISTED_GAPS]:
            texts = "; ".join(clean(text) for text in study.get("missing") or [])
            lines.append(f"  {clean(study.get('study_uid'))}: {texts}")
        if lacking > _LISTED_GAPS:
            lines.append(f"  ... and {lacking - _LISTED_GAPS:,} more; --json lists up to 100")
    elif complete and complete == total and is_whole and listed >= total:
        lines.append(f"No image of {which(total)} is missing, as the DICOMDIR has them.")
    elif complete and complete == total and is_whole:
        lines.append(f"Every series of {which(total)} has all the images that it says it consists of.")
    elif total and not unknown and is_whole:
        lines.append(f"There is no sign that images of {which(total)} are missing.")
    if unknown and is_whole:
        lines.append(
            f"It is not known whether images of {which(unknown)} are missing; dicomwatchctl show STUDY says why."
        )
    return lines


def _list_is_short(result: dict[str, Any]) -> list[str]:
    """What the medium's own list names, where not all of it is there."""
    listed, missing = _listed(result), _number(_dicomdir(result), "missing")
    if listed is None or not missing:
        return []
    return [
        f"Of {listed} on the disc's own list (DICOMDIR), {missing:,} {_are(missing)} missing: the disc is incomplete."
    ]


def _list_is_silent(result: dict[str, Any]) -> list[str]:
    """Where nothing says whether the medium has all that it should have."""
    tables = _dicomdir(result)
    unreadable, files = _number(tables, "unreadable"), _number(tables, "files")
    if not unreadable:
        return []
    which = "The DICOMDIR" if files == 1 else f"{unreadable:,} of the {files:,} DICOMDIRs"
    return [f"{which} could not be read, so it was not checked whether an image is missing on the disc."]


def _listed(result: dict[str, Any]) -> str | None:
    """What the medium's own list names; None where there is no such list."""
    tables = _dicomdir(result)
    images = _number(tables, "images")
    if not images:
        return None
    studies = counted(_number(tables, "studies"), "study", "studies")
    return f"the {counted(images, 'image')} of {studies}"


def _dicomdir(result: dict[str, Any]) -> dict[str, Any]:
    found = result.get("dicomdir")
    return found if isinstance(found, dict) else {}


def _held(result: dict[str, Any]) -> list[str]:
    """What stays until somebody has decided whose it is."""
    if not (count := _number(result, "held")):
        return []
    return [
        f"{counted(count, 'local copy', 'local copies')} {_are(count)} kept because a study is held: its files"
        " name two patients, or the archive has several versions of an image. An administrator sees it with"
        " `dicomwatchctl attention` and decides."
    ]


def _not_yours(result: dict[str, Any]) -> list[str]:
    """What was to be deleted and stays."""
    if not (count := _number(result, "not_yours")):
        return []
    return [
        f"{count:,} of them were kept because the user who started the upload may not delete them: this needs write"
        " access to the folder that holds them."
    ]


def _fate(deleted: int) -> str:
    if deleted:
        return f"{deleted:,} local copies of verified files were deleted; the others are still there."
    return "No local copy was deleted."


def _number(result: dict[str, Any], name: str) -> int:
    return int(result.get(name) or 0)


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
