"""Region and income group of each country, from a table in the package.

`countries.csv` has a row for each alpha-2 code of ISO 3166-1, and XK for Kosovo. Regions follow the United Nations'
standard M49, the Americas in two parts; TW and XK, which M49 does not list, have those of the countries around them.
Income groups follow the World Bank's of fiscal year 2025 (1 July 2024 to 30 June 2025), from the gross national income
per capita of 2023: 26 economies low, 51 lower middle, 54 upper middle, 86 high. Jersey and Guernsey are one of these
economies, the Channel Islands. What the World Bank did not classify has none.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

INCOME_YEAR = "fiscal year 2025"
"""Year of the World Bank's income groups in the table."""


@dataclass(frozen=True, kw_only=True)
class Country:
    """What the table says of a country."""

    region: str
    """Name of the region; empty for Antarctica."""
    income: str
    """Income group: low, lower middle, upper middle or high; empty where the World Bank has none."""


@cache
def read_countries() -> dict[str, Country]:
    """Read the table; keys are ISO 3166-1 alpha-2 codes."""
    with Path(__file__).with_name("countries.csv").open(encoding="utf-8", newline="") as file:
        return {row["alpha_2"]: Country(region=row["region"], income=row["income"]) for row in csv.DictReader(file)}
