"""The section of where the images come from: tables by region, income group and country, beside SA-1B's."""

from collections.abc import Callable, Mapping

from flows.pages.markup import card, note, table, text
from flows.report.contents import ReportContents
from flows.report.countries import INCOME_YEAR, read_countries
from flows.words import percent

NUM_COUNTRIES = 20
"""Maximum number of countries with a row of their own; the others share one."""
UNKNOWN, OTHERS = "unknown", "other countries"
SA1B_REGIONS = {
    "Africa": "300 k · 28 M",
    "Asia": "3.9 M · 423 M, with Oceania",
    "Oceania": "with Asia",
    "Europe": "5.4 M · 540 M",
    "Latin America and the Caribbean": "380 k · 36 M",
    "Northern America": "830 k · 80 M",
}
"""Images and masks of SA-1B by region: the paper's table 1."""
SA1B_INCOMES = {
    "high": "5.8 M · 598 M",
    "upper middle": "4.9 M · 499 M, with lower middle",
    "lower middle": "with upper middle",
    "low": "100 k · 9.4 M",
}
"""Images and masks of SA-1B by income group: the paper's table 1, which has one middle group."""

Counts = tuple[int, int]
"""Images and masks."""


def render(contents: ReportContents) -> str:
    """Render the section as HTML; "" where there are no images."""
    if not contents.images:
        return ""
    by_country = _count_by_country(contents)
    if set(by_country) == {""}:
        about = "No image has a country. ingest.country records one for all photos of an ingest."
        return f"<h2>Where the images come from</h2>{note(about)}"
    countries = read_countries()

    def of(part: str) -> Callable[[str], str]:
        return lambda code: getattr(countries[code], part) if code in countries else ""

    about = (
        "By the country of each image, as it was recorded at ingest, with all masks of the dataset. Regions: the "
        f"United Nations' M49. Income groups: the World Bank's, {INCOME_YEAR}. SA-1B: images and masks of table 1 of "
        "the paper."
    )
    regions = _group(by_country, of("region"), list(SA1B_REGIONS))
    incomes = _group(by_country, of("income"), list(SA1B_INCOMES))
    return (
        f'<h2>Where the images come from</h2>{note(about)}<div class="stack">'
        f"{_table('Region', regions, SA1B_REGIONS)}{_table('Income group', incomes, SA1B_INCOMES)}"
        f"{_table('Country', _largest(by_country), {})}</div>"
    )


def _count_by_country(contents: ReportContents) -> dict[str, Counts]:
    sql = (
        "SELECT i.country, count(*) AS images, sum(coalesce(m.number, 0)) AS masks FROM images i LEFT JOIN "
        "(SELECT image_id, count(*) AS number FROM masks GROUP BY image_id) m ON i.image_id = m.image_id "
        "GROUP BY i.country ORDER BY i.country"
    )
    return {row["country"]: (int(row["images"]), int(row["masks"])) for row in contents.rows(sql)}


def _group(by_country: Mapping[str, Counts], part: Callable[[str], str], names: list[str]) -> dict[str, Counts]:
    """Sum the counts of countries that share a part; every name has a row, and so has what is unknown."""
    sums = dict.fromkeys([*names, UNKNOWN], (0, 0))
    for code, (images, masks) in by_country.items():
        name = part(code) or UNKNOWN
        sums[name] = sums[name][0] + images, sums[name][1] + masks
    return sums


def _largest(by_country: Mapping[str, Counts]) -> dict[str, Counts]:
    """Sort countries by images, gather the small ones, and end with what is unknown."""
    known = sorted((item for item in by_country.items() if item[0]), key=lambda item: (-item[1][0], item[0]))
    rows = dict(known[:NUM_COUNTRIES])
    if rest := [counts for _, counts in known[NUM_COUNTRIES:]]:
        rows[f"{len(rest)} {OTHERS}"] = sum(images for images, _ in rest), sum(masks for _, masks in rest)
    return rows | {UNKNOWN: by_country.get("", (0, 0))}


def _table(title: str, groups: Mapping[str, Counts], sa1b: Mapping[str, str]) -> str:
    total_images, total_masks = (sum(counts[place] for counts in groups.values()) for place in (0, 1))
    rows = [
        [
            text(name),
            f"{images:,}",
            percent(images, total_images),
            f"{masks:,}",
            percent(masks, total_masks) if total_masks else "-",
            f"{masks / images:.1f}" if images else "-",
            *([sa1b.get(name, "not stated")] if sa1b else []),
        ]
        for name, (images, masks) in groups.items()
    ]
    titles = (title, "#Images", "#", "#Masks", "#", "#Masks per image", *(["#SA-1B"] if sa1b else []))
    return card(table(titles, rows))
