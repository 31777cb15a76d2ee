"""The section of where images come from: what is unknown has a row, and every group sums to the dataset."""

import re
from collections import Counter
from pathlib import Path

import pytest

from flows.report.contents import ReportContents
from flows.report.countries import read_countries
from flows.report.sections.places import NUM_COUNTRIES, SA1B_INCOMES, SA1B_REGIONS, UNKNOWN, _group, _largest, render
from tests.small_dataset import small_dataset
from tests.stages.release.photos import make_dataset


def rows_of(page: str) -> list[tuple[str, ...]]:
    return [tuple(re.findall(r"<td[^>]*>(.*?)</td>", row)) for row in re.findall(r"<tr>(<td.*?)</tr>", page)]


def test_images_count_by_region_income_group_and_country(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    dataset.fold()
    rows = rows_of(render(ReportContents(dataset)))  # one of seven images is from DE
    assert ("Europe", "1", "14 %", "4", "14 %", "4.0", SA1B_REGIONS["Europe"]) in rows
    assert ("high", "1", "14 %", "4", "14 %", "4.0", SA1B_INCOMES["high"]) in rows
    assert ("DE", "1", "14 %", "4", "14 %", "4.0") in rows
    assert ("Africa", "0", "0 %", "0", "0 %", "-", SA1B_REGIONS["Africa"]) in rows
    assert [row[1:4:2] for row in rows if row[0] == UNKNOWN] == [("6", "24")] * 3


def test_a_dataset_without_countries_says_how_to_record_them(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path)
    dataset.fold()
    page = render(ReportContents(dataset))
    assert "<table" not in page
    assert "ingest.country" in page


def test_countries_beyond_the_largest_share_a_row() -> None:
    codes = sorted(read_countries())[: NUM_COUNTRIES + 3]
    rows = _largest({code: (100 - number, 1) for number, code in enumerate(codes)} | {"": (5, 6)})
    assert list(rows) == [*codes[:NUM_COUNTRIES], "3 other countries", UNKNOWN]
    assert rows["3 other countries"] == (80 + 79 + 78, 3)
    assert rows[UNKNOWN] == (5, 6)


def test_a_code_that_is_none_counts_as_unknown() -> None:
    assert _group({"ZZ": (1, 2), "FR": (3, 4)}, lambda code: {"FR": "Europe"}.get(code, ""), ["Europe"]) == {
        "Europe": (3, 4),
        UNKNOWN: (1, 2),
    }


def test_every_country_has_a_region_and_the_world_bank_counts_as_many_economies_in_each_group() -> None:
    countries = read_countries()
    assert all(re.fullmatch("[A-Z]{2}", code) for code in countries)
    assert [code for code, country in countries.items() if not country.region] == ["AQ"]
    assert {country.region for country in countries.values()} == {*SA1B_REGIONS, ""}
    groups = Counter(country.income for country in countries.values() if country.income)
    groups["high"] -= 1  # Jersey and Guernsey are one economy, the Channel Islands
    assert groups == {"low": 26, "lower middle": 51, "upper middle": 54, "high": 86}


@pytest.mark.parametrize(
    ("income", "codes"),
    [("high", "BG PW RU TW"), ("upper middle", "UA MN IR DZ XK NA"), ("", "VE")],  # NA is Namibia, no missing value
)
def test_income_groups_are_those_of_fiscal_year_2025(income: str, codes: str) -> None:
    assert {code: read_countries()[code].income for code in codes.split()} == dict.fromkeys(codes.split(), income)
