"""What an archive costs at Amazon, by storage class and layout: an estimate from the sizes that the catalogue has.

The catalogue knows how many instances a study has and how many bytes, not how large each is: all instances of a study
count as equally large.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dicomwatchd.archive.layout.bundle import END_BYTES, member_bytes
from dicomwatchd.config.archive import BundledLayout

GB_BYTES = 1 << 30
NOT_INCLUDED = (
    "taxes, discounts and free tiers",
    "traffic: out of Amazon when studies are fetched, between regions, through endpoints",
    "copies in a second region, older versions of objects, unfinished uploads",
    "changes of storage class by lifecycle rules, and the least time that a class charges for",
    "revisions of a study after its first, searches, `verify` after the first proof",
    "CloudTrail data events, Object Lock's longer keeping, S3 Inventory and Batch Operations",
)
_LAYOUTS = ("instance", "bundled")
#: Whatever is above is a slip of the pen, and would make of the sums what no JSON holds.
_MOST = 1e12
_Usd = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False)]
_Bytes = Annotated[int, Field(ge=0, le=int(_MOST))]


class PricesError(ValueError):
    """A file of prices cannot be used; the text says where and why."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StorageStep(_Model):
    usd_per_gb: _Usd
    #: None: all that is above the steps before.
    up_to_gb: float | None = Field(None, gt=0, le=_MOST, allow_inf_nan=False)


class StorageClass(_Model):
    storage: tuple[StorageStep, ...] = Field(min_length=1)
    usd_per_1000_put: _Usd
    usd_per_1000_get: _Usd
    usd_per_gb_read: _Usd
    billed_from_bytes: _Bytes = 0
    usd_per_1000_monitored: _Usd = 0.0
    tiered_from_bytes: _Bytes = 0
    usd_per_gb_of_smaller: _Usd = 0.0

    @model_validator(mode="after")
    def _steps_rise(self) -> StorageClass:
        ends = [math.inf if step.up_to_gb is None else step.up_to_gb for step in self.storage]
        if ends != sorted(set(ends)) or ends[-1] != math.inf:
            raise ValueError("storage: up_to_gb has to rise from step to step, and the last one has none")
        return self

    def usd_per_month(self, size_bytes: float) -> float:
        usd, below = 0.0, 0.0
        for step in self.storage:
            end = math.inf if step.up_to_gb is None else step.up_to_gb
            usd += max(0.0, min(size_bytes / GB_BYTES, end) - below) * step.usd_per_gb
            below = end
        return usd


class TablePrices(_Model):
    usd_per_million_write_units: _Usd
    usd_per_gb: _Usd
    usd_per_gb_of_recovery: _Usd


class KeyPrices(_Model):
    usd_per_month: _Usd
    usd_per_10000_requests: _Usd


class Assumptions(_Model):
    heads_per_object: float = Field(ge=0, le=_MOST, allow_inf_nan=False)
    manifest_bytes_per_instance: _Bytes
    table_write_units_per_study: float = Field(ge=0, le=_MOST, allow_inf_nan=False)
    table_bytes_per_study: _Bytes
    objects_per_key_request: float = Field(ge=1, le=_MOST, allow_inf_nan=False)


class Prices(_Model):
    region: str
    date: datetime.date
    source: str
    #: Manifests are always in STANDARD.
    storage_classes: Mapping[str, StorageClass]
    table: TablePrices
    key: KeyPrices
    assumptions: Assumptions


def load_prices(path: Path | None = None) -> Prices:
    """The list prices that come with the program, with those of a file (YAML or JSON) in their place. Raises
    PricesError."""
    text = resources.files("dicomwatchd.archive").joinpath("prices.yaml").read_text(encoding="utf-8")
    prices: Any = yaml.safe_load(text)
    if path is not None:
        try:
            other = yaml.safe_load(path.read_text(encoding="utf-8"))
        except RecursionError as error:
            raise PricesError(f"{path}: nested too deeply") from error
        except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no UTF-8, a date that is none
            raise PricesError(f"{path}: {error}") from error
        if not isinstance(other, dict):
            raise PricesError(f"{path}: no prices by their names")
        prices = _merged(prices, other)
    try:
        return Prices.model_validate(prices)
    except ValidationError as error:
        places = (f"{'.'.join(map(str, one['loc'])) or 'prices'}: {one['msg']}" for one in error.errors())
        raise PricesError(f"{path}: {'; '.join(places)}") from error


def _merged(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}
    return above


@dataclass(frozen=True, slots=True)
class Estimate:
    """``usd_to_store`` is paid once, ``usd_to_fetch`` each time that all of it is read."""

    storage_class: str
    layout: str
    objects: int
    stored_bytes: int
    billed_bytes: int
    usd_per_month: float
    usd_to_store: float
    usd_to_fetch: float


@dataclass(slots=True)
class _Sum:
    billed_bytes: float = 0.0
    smaller_bytes: float = 0.0
    monitored: int = 0


@dataclass(slots=True)
class Sizes:
    """What a number of studies amounts to, added up one by one. ``bundles`` says how these are made."""

    prices: Prices
    bundles: BundledLayout
    studies: int = 0
    instances: int = 0
    size_bytes: int = 0
    _objects: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_LAYOUTS, 0))
    _stored: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_LAYOUTS, 0.0))
    _sums: dict[tuple[str, str], _Sum] = field(default_factory=dict)

    def add(self, instances: int, size_bytes: int, studies: int = 1) -> None:
        """``studies`` of these, each with so many instances and bytes."""
        self.studies += studies
        self.instances += instances * studies
        self.size_bytes += size_bytes * studies
        for layout, (objects, stored) in (
            ("instance", (instances, float(size_bytes))),
            ("bundled", self._bundled(instances, size_bytes)),
        ):
            if objects == 0:
                continue
            each = stored / objects
            self._objects[layout] += objects * studies
            self._stored[layout] += stored * studies
            for name, prices in self.prices.storage_classes.items():
                total = self._sums.setdefault((name, layout), _Sum())
                if each < prices.tiered_from_bytes:
                    total.smaller_bytes += stored * studies
                else:
                    total.billed_bytes += max(each, prices.billed_from_bytes) * objects * studies
                    total.monitored += objects * studies

    def _bundled(self, instances: int, size_bytes: int) -> tuple[int, float]:
        """Objects and bytes of a study in the bundled layout."""
        if instances == 0 or size_bytes / instances >= self.bundles.below_bytes:
            return instances, float(size_bytes)
        member = member_bytes(math.ceil(size_bytes / instances))
        objects = math.ceil(instances / max(1, (self.bundles.size_bytes - END_BYTES) // member))
        return objects, float(instances * member + objects * END_BYTES)

    def estimates(self) -> list[Estimate]:
        return [self._estimate(name, layout) for name in self.prices.storage_classes for layout in _LAYOUTS]

    def _estimate(self, name: str, layout: str) -> Estimate:
        prices, assumed = self.prices.storage_classes[name], self.prices.assumptions
        total = self._sums.get((name, layout), _Sum())
        objects, stored = self._objects[layout], self._stored[layout]
        a_key_request = self.prices.key.usd_per_10000_requests / 10_000 / assumed.objects_per_key_request
        a_get = prices.usd_per_1000_get / 1000
        store = objects * (prices.usd_per_1000_put / 1000 + assumed.heads_per_object * a_get + a_key_request)
        month = prices.usd_per_month(total.billed_bytes) + total.monitored * prices.usd_per_1000_monitored / 1000
        month += total.smaller_bytes / GB_BYTES * prices.usd_per_gb_of_smaller
        return Estimate(
            name,
            layout,
            objects,
            round(stored),
            round(total.billed_bytes + total.smaller_bytes),
            month + self._records_per_month(),
            store + self._records_once(),
            objects * (a_get + a_key_request) + stored / GB_BYTES * prices.usd_per_gb_read,
        )

    def _records_per_month(self) -> float:
        """Manifests and table, the same in each storage class."""
        table, assumed = self.prices.table, self.prices.assumptions
        manifests = self._manifests().usd_per_month(self.instances * assumed.manifest_bytes_per_instance)
        table_gb = self.studies * assumed.table_bytes_per_study / GB_BYTES
        return manifests + table_gb * (table.usd_per_gb + table.usd_per_gb_of_recovery)

    def _records_once(self) -> float:
        assumed, manifests = self.prices.assumptions, self._manifests()
        units = self.studies * assumed.table_write_units_per_study
        requests = self.studies * (manifests.usd_per_1000_put + manifests.usd_per_1000_get) / 1000
        return requests + units * self.prices.table.usd_per_million_write_units / 1_000_000

    def _manifests(self) -> StorageClass:
        return self.prices.storage_classes["STANDARD"]


def added_up(prices: Prices, bundles: BundledLayout, studies: Iterable[tuple[int, int]]) -> Sizes:
    """``studies`` are (instances, bytes)."""
    sizes = Sizes(prices, bundles)
    for instances, size_bytes in studies:
        sizes.add(instances, size_bytes)
    return sizes


def per_thousand(sizes: Sizes, estimates: Sequence[Estimate]) -> list[dict[str, float] | None]:
    """The dollars of each estimate for every thousand studies; None where there is no study."""
    if sizes.studies == 0:
        return [None] * len(estimates)
    share = 1000 / sizes.studies
    names = ("usd_per_month", "usd_to_store", "usd_to_fetch")
    return [{name: getattr(one, name) * share for name in names} for one in estimates]
