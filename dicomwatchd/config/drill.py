"""What the configuration says of restore drills."""

from __future__ import annotations

from pydantic import Field

from dicomwatchd.config.basics import Model, WholeNumber

#: One study every nine seconds: for trying out, not for an archive that is paid for by the GB.
MOST_STUDIES = 10_000


class RestoreDrill(Model):
    """Archived studies, chosen at random, are fetched and compared with their manifests."""

    studies_per_day: WholeNumber = Field(default=0, ge=0, le=MOST_STUDIES, description="How many studies; 0: none")
    bytes_per_day: WholeNumber = Field(
        default=5_000_000_000,
        ge=1 << 20,
        description="At most so many bytes are fetched in 24 hours; larger studies are left out",
    )
