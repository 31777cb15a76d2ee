"""Which images a round asks about, in which order.

An order is any function that lists image ids of a dataset, the most wanted first: `random_order`, `sql_order` and
`stages.rounds.worth.worth_order` are three.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from storage.dataset import Dataset
from storage.errors import InvalidInput

Order = Callable[[Dataset], Sequence[int]]
"""Function that lists image ids of a dataset, the most wanted first."""


@dataclass(frozen=True, kw_only=True)
class ChosenImage:
    """Image that a round asks about."""

    image_id: int
    height: int
    """Height of the stored image, in pixels."""
    width: int
    """Width of the stored image, in pixels."""


def choose_images(
    dataset: Dataset, order: Order, *, count: int | None = None, without: Collection[int] = ()
) -> list[ChosenImage]:
    """Choose the first images of an order.

    Args:
        dataset: The dataset, folded.
        order: Order of the images.
        count: Number of images to choose; None for all.
        without: Image ids to pass over.

    Raises:
        ValueError: The order names an image that the dataset does not hold, or one twice, or no image is left.
    """
    rows = dataset.query("SELECT image_id, height, width FROM images")
    sizes = dict(
        zip(
            rows["image_id"].to_pylist(),
            zip(rows["height"].to_pylist(), rows["width"].to_pylist(), strict=True),
            strict=True,
        )
    )
    wanted = [image_id for image_id in order(dataset) if image_id not in without]
    unknown = [image_id for image_id in wanted if image_id not in sizes]
    if unknown:
        raise InvalidInput(f"{len(unknown)} chosen images are not in {dataset.uri}, the first is {unknown[0]}")
    if len(set(wanted)) != len(wanted):
        raise InvalidInput(f"the order of the images names {len(wanted) - len(set(wanted))} images twice; use DISTINCT")
    if not wanted:
        already = f"; {len(without)} are in other rounds" if without else ""
        raise InvalidInput(f"no image of {dataset.uri} is left to ask about{already}")
    return [
        ChosenImage(image_id=image_id, height=sizes[image_id][0], width=sizes[image_id][1])
        for image_id in wanted[:count]
    ]


def random_order(seed: int) -> Order:
    """Make the order that shuffles all images; the same seed and images give the same order."""

    def order(dataset: Dataset) -> list[int]:
        ids = np.sort(dataset.query("SELECT image_id FROM images")["image_id"].to_numpy())
        return [int(each) for each in np.random.default_rng(seed).permutation(ids)]

    return order


def held_out_first(order: Order, *, every: int, count: int, without: Collection[int] = ()) -> Order:
    """Put some held-out images of an order, those whose id `every` divides, before its others.

    No training sees held-out images; what people mask on them judges new models.

    Args:
        order: The order of all images.
        every: Number of images of which one is held out.
        count: Number of held-out images to put first.
        without: Image ids that are left out.
    """

    def reordered(dataset: Dataset) -> list[int]:
        ids = [image_id for image_id in order(dataset) if image_id not in without]
        first = [image_id for image_id in ids if image_id % every == 0][:count]
        return first + [image_id for image_id in ids if image_id not in first]

    return reordered


def hold_out_one_in(image_ids: Collection[int], *, least: int) -> int | None:
    """Find of how many images one is to be held out, so that at least `least` are held out and as many train.

    The answer is 5, or less for few images; None where no number does.
    """
    for every in (5, 4, 3, 2):
        held_out = sum(image_id % every == 0 for image_id in image_ids)
        if min(held_out, len(image_ids) - held_out) >= least:
            return every
    return None


def sql_order(sql: str) -> Order:
    """Make the order of a query's rows; the query has a column `image_id`.

    The order's function raises ValueError for a query that is wrong or lacks the column.
    """

    def order(dataset: Dataset) -> list[int]:
        rows = dataset.query(sql)
        if "image_id" not in rows.column_names or not pa.types.is_integer(rows.schema.field("image_id").type):
            raise InvalidInput(f"the query gives {rows.column_names}; expected a column image_id of whole numbers")
        ids: list[int] = rows["image_id"].to_pylist()
        return ids

    return order
