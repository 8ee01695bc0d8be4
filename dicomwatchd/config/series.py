"""What stands in the configuration under ``series_objects``."""

from __future__ import annotations

from typing import Literal

#: "off": none are written. "as-sent": of series whose files were all looked at while they were sent, which costs no
#: request but the object's own. "complete": what was not looked at is read back from the store.
SeriesObjects = Literal["off", "as-sent", "complete"]
