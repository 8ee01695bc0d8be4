"""What the archive costs: the figures by hand, other prices, and the command on the embedded archive."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dicomwatchd.archive.catalogues.dynamodb.items import to_items
from dicomwatchd.archive.cost import GB_BYTES, PricesError, Sizes, added_up, load_prices
from dicomwatchd.cli.app import root
from dicomwatchd.config.archive import BundledLayout
from tests import schemas
from tests.unit.memory_archive import PATIENT, SERIES, STUDY, MemoryStore, archive, content
from tests.unit.test_cli_archive import Site, bare, site

__all__ = ["bare", "site"]  # fixtures

BUNDLES = BundledLayout.model_validate({"kind": "bundled"})


def of(sizes: Sizes, storage_class: str, layout: str) -> Any:
    (found,) = [e for e in sizes.estimates() if (e.storage_class, e.layout) == (storage_class, layout)]
    return found


def thousand(instances: int, instance_bytes: int) -> Sizes:
    sizes = Sizes(load_prices(), BUNDLES)
    sizes.add(instances, instances * instance_bytes, 1000)
    return sizes


def test_a_thousand_ct_studies() -> None:
    """1,000 instances each, of 526,000 bytes: the figures of docs/amazon.md, by hand."""
    sizes = thousand(1000, 526_000)
    single, bundled = of(sizes, "STANDARD", "instance"), of(sizes, "STANDARD", "bundled")
    assert (single.objects, bundled.objects) == (1_000_000, 67_000)  # 15 to a bundle of 8 MiB
    # A PUT and a HEAD for each object, and for 1,000 manifests; the key for one object in 100; 25,000 write units.
    assert single.usd_to_store == pytest.approx(5.00 + 0.40 + 0.0054 + 0.03 + 0.0156, abs=1e-4)
    assert bundled.usd_to_store == pytest.approx(0.335 + 0.0268 + 0.0054 + 0.002 + 0.0156, abs=1e-3)
    # 526 GB are 489.9 of Amazon's; 790 MB of manifests, and 12 MB of the table.
    assert single.usd_per_month == pytest.approx(526e9 / GB_BYTES * 0.023 + 0.0169 + 0.0050, abs=1e-3)
    instant = of(sizes, "GLACIER_IR", "instance")
    assert instant.usd_per_month == pytest.approx(526e9 / GB_BYTES * 0.004 + 0.0219, abs=1e-3)
    assert instant.usd_to_store == pytest.approx(20 + 10 + 0.03 + 0.021, abs=1e-3)
    assert instant.usd_to_fetch == pytest.approx(10 + 0.03 + 526e9 / GB_BYTES * 0.03, abs=1e-2)


def test_a_thousand_mr_studies_of_small_files() -> None:
    """5,000 of 40 KB: a class that charges for 128 KB at least costs three times as much, but not of bundles."""
    sizes = thousand(5000, 40_000)
    assert of(sizes, "STANDARD", "bundled").objects == 1000 * 25
    single, bundled = of(sizes, "GLACIER_IR", "instance"), of(sizes, "GLACIER_IR", "bundled")
    assert single.billed_bytes == 5_000_000 * 131_072
    assert bundled.billed_bytes == bundled.stored_bytes < 1.03 * 200e9
    # Too small to be tiered: the price of frequent access, and no monitoring.
    tiered = of(sizes, "INTELLIGENT_TIERING", "instance")
    assert tiered.usd_per_month == pytest.approx(of(sizes, "STANDARD", "instance").usd_per_month)
    assert of(sizes, "INTELLIGENT_TIERING", "bundled").usd_per_month < 0.25 * tiered.usd_per_month


def test_large_instances_are_not_bundled() -> None:
    sizes = thousand(4, 30_000_000)
    single, bundled = of(sizes, "STANDARD", "instance"), of(sizes, "STANDARD", "bundled")
    assert (single.objects, single.stored_bytes) == (bundled.objects, bundled.stored_bytes)


def test_storage_in_steps() -> None:
    standard = load_prices().storage_classes["STANDARD"]
    tb = 1024 * GB_BYTES
    assert standard.usd_per_month(50 * tb) == pytest.approx(51200 * 0.023)
    assert standard.usd_per_month(600 * tb) == pytest.approx(51200 * 0.023 + 460_800 * 0.022 + 102_400 * 0.021)


def test_studies_are_added_up_one_by_one() -> None:
    mixed = added_up(load_prices(), BUNDLES, [(1000, 526_000_000), (0, 0), (1, 7)])
    assert (mixed.studies, mixed.instances, mixed.size_bytes) == (3, 1001, 526_000_007)
    assert of(mixed, "STANDARD", "instance").objects == 1001
    assert of(mixed, "STANDARD", "bundled").objects == 68
    assert of(mixed, "GLACIER_IR", "instance").billed_bytes == 526_000_000 + 131_072


def test_what_is_assumed_of_the_table_is_what_a_study_takes() -> None:
    """A usual study, with one series: DynamoDB counts an item's KB once for the table and once for each index."""
    store = MemoryStore()
    record = archive(
        store, [(SERIES, f"1.2.{n}", content(n)) for n in range(1, 4)], study=STUDY, attributes=PATIENT
    ).record()
    items, keys = to_items(record), ("patient_id", "accession_number", "study_date_uid", "archived_at_uid", "term")
    units = size = 0
    for item in (items.study, *items.series, *items.also):
        copies = 1 + sum(key in item for key in keys)
        item_bytes = len(json.dumps(item))
        units += copies * -(-item_bytes // 1024)
        size += copies * (item_bytes + 100)  # what DynamoDB adds to each item of an index
    assumed = load_prices().assumptions
    assert 0.4 * assumed.table_write_units_per_study < units < 1.5 * assumed.table_write_units_per_study
    assert 0.4 * assumed.table_bytes_per_study < size < 1.5 * assumed.table_bytes_per_study


# --- other prices


def test_a_file_of_prices_has_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "frankfurt.yaml"
    path.write_text(
        "region: eu-central-1\ndate: 2026-12-01\nsource: our contract\n"
        "storage_classes: {STANDARD: {storage: [{usd_per_gb: 0.0245}]}}\n"
    )
    prices = load_prices(path)
    assert (prices.region, prices.source) == ("eu-central-1", "our contract")
    standard = prices.storage_classes["STANDARD"]
    assert standard.usd_per_month(GB_BYTES) == pytest.approx(0.0245)
    assert standard.usd_per_1000_put == load_prices().storage_classes["STANDARD"].usd_per_1000_put
    path.write_text(json.dumps({"key": {"usd_per_month": 2}}))
    assert load_prices(path).key.usd_per_month == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("key: {usd_per_year: 1}", "key.usd_per_year"),
        ("key: {usd_per_month: -1}", "key.usd_per_month"),
        ("key: {usd_per_month: .nan}", "key.usd_per_month"),
        ("key: {usd_per_month: much}", "key.usd_per_month"),
        ("table: null", "table"),
        ("storage_classes: {STANDARD: {storage: []}}", "storage_classes.STANDARD.storage"),
        ("storage_classes: {STANDARD: {storage: [{usd_per_gb: 1, up_to_gb: 5}]}}", "the last one has none"),
        ("storage_classes: {STANDARD: {storage: [{usd_per_gb: 1}, {usd_per_gb: 2}]}}", "the last one has none"),
        ("storage_classes: {DEEP_ARCHIVE: {storage: [{usd_per_gb: 0.00099}]}}", "DEEP_ARCHIVE.usd_per_1000_put"),
        ("storage_classes: {STANDARD: null}", "storage_classes.STANDARD"),
        ("- 1", "no prices"),
        ("{", "line 1"),
        ("assumptions: {heads_per_object: .inf}", "heads_per_object"),
        ("assumptions: {table_bytes_per_study: 1" + "0" * 400 + "}", "table_bytes_per_study"),
        ("storage_classes: {GLACIER_IR: {billed_from_bytes: 1" + "0" * 400 + "}}", "billed_from_bytes"),
        ("key: {usd_per_month: 1.0e300}", "key.usd_per_month"),
        ("date: 2026-13-45", "month must be in"),
        ("a: " + "[" * 5000, "nested"),
    ],
)
def test_prices_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(PricesError, match=said):
        load_prices(path)


# --- the command


def test_the_archives_own_sizes(site: Site) -> None:
    site.add([(SERIES, f"1.2.{n}", content(n)) for n in range(1, 4)])
    answer = site.json("archive", "cost")
    record = site.catalogue().get(STUDY)
    assert record is not None
    assert (answer["studies"], answer["instances"], answer["size_bytes"]) == (1, 3, record.size_bytes)
    assert answer["layout"] == "instance"
    assert [(e["storage_class"], e["layout"], e["objects"]) for e in answer["estimates"]] == [
        (name, layout, objects)
        for name in ("STANDARD", "INTELLIGENT_TIERING", "GLACIER_IR")
        for layout, objects in (("instance", 3), ("bundled", 1))
    ]
    first = answer["estimates"][0]
    assert first["per_thousand_studies"]["usd_to_store"] == pytest.approx(1000 * first["usd_to_store"], rel=0.05)
    said = site.ctl("archive", "cost").output
    assert "1 study with 3 instances" in said and "instance*" in said and "Not included: taxes" in said
    assert "Prices: us-east-1, 2026-11-25" in said


def test_an_empty_archive(site: Site) -> None:
    answer = site.json("archive", "cost")
    assert answer["studies"] == 0
    assert {e["per_thousand_studies"] for e in answer["estimates"]} == {None}
    assert "no study yet" in site.ctl("archive", "cost").output


def test_options_in_place_of_a_configuration(site: Site) -> None:
    site.add([(SERIES, "1.2.1", content(1))])
    site.config.unlink()
    answer = site.json(
        "archive", "cost", "--directory", str(site.archive), "--catalogue-file", str(site.catalogue_file)
    )
    assert (answer["studies"], answer["layout"]) == (1, None)


def without_a_configuration(*arguments: str) -> Any:
    result = CliRunner().invoke(root, ["--config", "/nowhere", "archive", "cost", *arguments])
    if "--json" in arguments:
        schemas.check_output(("archive", "cost"), result.stdout, result.exit_code)
    return result


def test_described_studies_need_no_archive(tmp_path: Path) -> None:
    answer = json.loads(without_a_configuration("--instances", "5000", "--instance-bytes", "40000", "--json").stdout)
    assert (answer["studies"], answer["instances"], answer["size_bytes"]) == (1000, 5_000_000, 200_000_000_000)
    first = answer["estimates"][0]
    assert first["usd_per_month"] == first["per_thousand_studies"]["usd_per_month"]
    assert json.loads(without_a_configuration("--instances", "7", "--json").stdout)["size_bytes"] == 7 * 526_000_000


def test_wrong_command_lines(tmp_path: Path) -> None:
    assert without_a_configuration("--instance-bytes", "7").exit_code == 2
    wrong = tmp_path / "prices.yaml"
    wrong.write_text("kye: 1")
    said = without_a_configuration("--instances", "7", "--prices", str(wrong))
    assert said.exit_code == 2 and "kye" in said.output


# --- the documents


def test_the_figures_of_the_documents_are_the_calculators() -> None:
    text = (Path(__file__).parents[2] / "docs" / "amazon.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.partition("<!-- cost -->")[2].splitlines()
    ]
    rows = list(itertools.takewhile(len, rows[1:]))[2:]
    assert len(rows) == 12
    sizes = Sizes(load_prices(), BUNDLES)
    for described, storage_class, layout, *figures in rows:
        if described:
            found = re.fullmatch(r"1,000 x ([\d,]+) \w+ of ([\d,]+) bytes", described)
            assert found is not None
            sizes = thousand(*(int(number.replace(",", "")) for number in found.groups()))
        one = of(sizes, storage_class, layout)
        dollars = (one.usd_to_store, one.usd_per_month, one.usd_to_fetch)
        assert figures == [f"{one.objects:,}", *(f"{usd:,.2f}" for usd in dollars)]


def test_the_figures_of_the_readme_are_the_calculators() -> None:
    text = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    found = re.search(r"a thousand CT images cost ([\d.]+) \$ to store instead of ([\d.]+) \$", text)
    sizes = thousand(1000, 526_000)
    dollars = [of(sizes, "STANDARD", layout).usd_to_store for layout in ("bundled", "instance")]
    assert found is not None and list(found.groups()) == [f"{usd:.2f}" for usd in dollars]


def test_the_prices_that_the_documents_show_can_be_used(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "amazon.md").read_text()
    path = tmp_path / "prices.yaml"
    path.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    assert load_prices(path).region == "eu-central-1"
