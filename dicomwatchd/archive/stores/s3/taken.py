"""Whether a key is likely to be taken: then the object is looked for before its bytes are sent, and not after.

Keys are named by content, so what is under a taken one is nearly always the very object; its bytes would go over the
line for a refusal. Where a state was lost, or a CD is brought again, that is all of them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from dicomwatchd.archive import keys

#: Studies of which the last outcome is remembered.
_STUDIES = 1000


class Taken:
    """What became of the last object of each study, which is what is expected of its next. Of a study that nothing is
    known of the last object of all tells. A guess that is wrong costs a request, and changes nothing else.

    Safe to use from many threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = False
        self._of_study: OrderedDict[str, bool] = OrderedDict()

    def is_likely(self, key: str) -> bool:
        study = _study(key)
        if study is None:
            return False
        with self._lock:
            return self._of_study.get(study, self._last)

    def note(self, key: str, taken: bool) -> None:
        study = _study(key)
        if study is None:
            return
        with self._lock:
            self._last = self._of_study[study] = taken
            self._of_study.move_to_end(study)
            if len(self._of_study) > _STUDIES:
                self._of_study.popitem(last=False)


def _study(key: str) -> str | None:
    """The study of an instance or a bundle; None for what is not named by its content."""
    if not key.startswith(keys.STUDIES) or not key.endswith((".dcm", ".tar")):
        return None
    return key.split("/")[1]
