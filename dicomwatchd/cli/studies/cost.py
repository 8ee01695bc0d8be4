"""`dicomwatchctl archive cost`: what the archive costs at Amazon, estimated."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.studies.access import ArchiveOptions, archive_and_catalogue_options, opened
from dicomwatchd.cli.terminal import output, progress, tables

if TYPE_CHECKING:
    from dicomwatchd.archive.cost import Estimate, Prices, Sizes
    from dicomwatchd.config.archive import BundledLayout

#: So many studies are calculated where they are described and not looked up.
_DESCRIBED = 1000


@click.command()
@click.option(
    "--prices",
    "prices_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Other prices (YAML or JSON) in place of the list prices of us-east-1 that come with the program.",
)
@click.option(
    "--instances",
    metavar="N",
    type=click.IntRange(min=1, max=1_000_000),
    help="Calculate for 1,000 studies of so many instances; the archive is not read.",
)
@click.option(
    "--instance-bytes",
    metavar="N",
    type=click.IntRange(min=1, max=1 << 40),
    help="Size of each of these instances. Default: 526000, a CT image.",
)
@output.json_option
@tables.wide_option
@archive_and_catalogue_options
@click.pass_obj
def cost(
    invocation: Invocation,
    prices_file: Path | None,
    instances: int | None,
    instance_bytes: int | None,
    as_json: bool,
    where: ArchiveOptions,
) -> None:
    """Estimate what the archive costs at Amazon.

    Adds up the studies of the catalogue and says, for each storage class and layout, what all of them would cost a
    month, and what a thousand of them cost to store, a month, and to fetch. It is an estimate from list prices: the
    catalogue has the number of instances and bytes of each study, not the size of each instance, and what is not
    included is named. Reads the whole catalogue, and no object. An archive in a folder can be calculated, too.
    """
    from dicomwatchd.archive.cost import PricesError, Sizes, added_up, load_prices

    if instance_bytes is not None and instances is None:
        raise click.UsageError("--instance-bytes needs --instances")
    try:
        prices = load_prices(prices_file)
    except PricesError as error:
        raise click.BadParameter(str(error), param_hint="--prices") from error
    if instances is not None:
        sizes = Sizes(prices, _bundles(None))
        sizes.add(instances, instances * (instance_bytes or 526_000), _DESCRIBED)
        layout = None
    else:
        from dicomwatchd.archive.records import Query

        layout = None if where.given else _layout(invocation)
        with opened(invocation, where) as archive, progress.bar(wanted=not as_json) as update:
            records = enumerate(archive.needed_catalogue().search(Query()), start=1)
            studies = (_shown(update, number, one.instances, one.size_bytes) for number, one in records)
            sizes = added_up(prices, _bundles(layout), studies)
    if as_json:
        output.document(_document(sizes, layout))
    else:
        _say(sizes, layout)


def _shown(update: progress.Update, number: int, instances: int, size_bytes: int) -> tuple[int, int]:
    if number % 1000 == 0:
        update(number, number, 0, 0, "Studies added up")
    return instances, size_bytes


def _layout(invocation: Invocation) -> Any:
    from dicomwatchd.config import loading

    return loading.load(invocation.config_path).archive.layout


def _bundles(layout: Any) -> BundledLayout:
    """How bundles are made, or would be."""
    from dicomwatchd.config.archive import BundledLayout

    return layout if isinstance(layout, BundledLayout) else BundledLayout.model_validate({"kind": "bundled"})


def _document(sizes: Sizes, layout: Any) -> dict[str, Any]:
    from dicomwatchd.archive.cost import NOT_INCLUDED, per_thousand

    prices, estimates = sizes.prices, sizes.estimates()
    return {
        "prices": {"region": prices.region, "date": prices.date.isoformat(), "source": prices.source},
        "assumptions": prices.assumptions.model_dump(),
        "studies": sizes.studies,
        "instances": sizes.instances,
        "size_bytes": sizes.size_bytes,
        "layout": layout and layout.kind,
        "key_usd_per_month": prices.key.usd_per_month,
        "estimates": [
            {**_rounded(asdict(one)), "per_thousand_studies": thousand and _rounded(thousand)}
            for one, thousand in zip(estimates, per_thousand(sizes, estimates), strict=True)
        ],
        "not_included": list(NOT_INCLUDED),
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}


def _say(sizes: Sizes, layout: Any) -> None:
    from dicomwatchd.archive.cost import NOT_INCLUDED, per_thousand

    prices, estimates = sizes.prices, sizes.estimates()
    output.say(
        f"{output.count(sizes.studies, 'study', 'studies')} with {output.count(sizes.instances, 'instance')},"
        f" {output.size(sizes.size_bytes)}. US dollars, estimated."
    )
    if sizes.studies:
        thousands = per_thousand(sizes, estimates)
        tables.table(
            ("STORAGE CLASS", "LAYOUT", "OBJECTS", "A MONTH", "STORE", "KEEP", "FETCH"),
            (
                _row(one, thousand, is_own=layout is not None and one.layout == layout.kind)
                for one, thousand in zip(estimates, thousands, strict=True)
                if thousand
            ),
            least=("OBJECTS",),
        )
        output.say(
            "A MONTH: of all studies. Of a thousand of them: STORE, once; KEEP, a month; FETCH, each time that all are"
            " read."
        )
        if layout is not None:
            output.say("*: the layout of the configuration. Objects that are archived keep theirs.")
    else:
        output.say("The catalogue has no study yet; try --instances 1000.")
    output.say(f"A key of your own costs {_usd(prices.key.usd_per_month)} a month in addition.")
    output.say(f"Prices: {prices.region}, {prices.date.isoformat()}; {prices.source}.")
    _say_assumptions(prices)
    output.say(f"Not included: {'; '.join(NOT_INCLUDED)}.")


def _row(one: Estimate, thousand: dict[str, float], *, is_own: bool) -> tuple[object, ...]:
    return (
        one.storage_class,
        one.layout + ("*" if is_own else ""),
        f"{one.objects:,}",
        _usd(one.usd_per_month),
        *(_usd(thousand[name]) for name in ("usd_to_store", "usd_per_month", "usd_to_fetch")),
    )


def _say_assumptions(prices: Prices) -> None:
    assumed = prices.assumptions
    output.say(
        f"Assumed: instances of a study are equally large; {assumed.heads_per_object:g} HEAD for each object;"
        f" a manifest of {assumed.manifest_bytes_per_instance} bytes an instance;"
        f" {assumed.table_write_units_per_study:g} write units and {assumed.table_bytes_per_study:,} bytes of the table"
        f" a study; one request of the key for {assumed.objects_per_key_request:g} objects; INTELLIGENT_TIERING: not"
        " read for 90 days."
    )


def _usd(value: float) -> str:
    return f"{value:,.2f}"
