"""Open a round: choose images, set overlap, mix gold images in, and hand all to the workspace.

choose -> overlap -> gold -> prefill -> workspace
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import numpy as np

from engine.selection.config import CHOOSE_BY, ChooseBy
from stages.rounds.choose import (
    ChosenImage,
    Order,
    choose_images,
    held_out_first,
    random_order,
    sql_order,
)
from storage.dataset import Dataset
from storage.errors import InvalidInput
from storage.tables.samples import MASK_COLUMNS, read_masks
from storage.workspace.records import ClientRequest, GivenMask, Round, RoundSpec, RoundState, TaskSpec
from storage.workspace.round_rows import check_state
from storage.workspace.tasks import ImagesTaken
from storage.workspace.workspace import Workspace

_STORED = ("query", "choose_by", "seed", "overlap", "overlap_fraction", "gold", "prefill", "empty_fraction", "model")
"""Fields of a request that are stored as the round's settings; the others have columns of their own."""
_Taken = TypeVar("_Taken")
GOLD_VIEWS = 3
"""Number of annotators who see each gold image."""


@dataclass(frozen=True, kw_only=True)
class RoundRequest:
    """Round that somebody wants: which images, who sees them, with which instructions."""

    stage: str
    """Stage of the engine: assisted_manual or semi_automatic."""
    images: int | None = None
    """Number of images to choose; None for all that the order lists."""
    query: str = ""
    """SQL query with a column image_id that lists the images, the most wanted first; empty for a random order."""
    choose_by: ChooseBy = "random"
    """Order where no query gives one; the round's model ranks images, or the promoted one where the request names none.
    """
    held_out_images: int = 0
    """Least number of held-out images in a random choice, where that many are left; they judge new models."""
    held_out_every: int = 5
    """Number of images of which trainings hold one out, by its id."""
    seed: int = 0
    """Seed of what is random: the order, the overlapped images and the places of gold images."""
    overlap: int = 1
    """Number of annotators who see an overlapped image."""
    overlap_fraction: float = 1.0
    """Fraction of the images that are overlapped, in [0, 1]; one annotator sees each of the others."""
    gold: str = ""
    """SQL query with the columns image_id and mask_id that lists known good masks; empty for no gold images."""
    name: str = ""
    """Name for people; empty for none."""
    guidelines: str = ""
    """Text that annotators are shown."""
    priority: int = 0
    """Priority among open rounds."""
    prefill: str = "stage = 'fully_automatic'"
    """Masks that a semi-automatic round's images begin with: an SQL condition on the table `masks`, `detector` (the
    generic object detector and the model) or `generator` (the automatic mask generator)."""
    empty_fraction: float = 0.0
    """Fraction of a semi-automatic round's images that begin empty, to measure what prefilling saves, in [0, 1)."""
    model: str = ""
    """Name or id of the model that answers annotators' prompts; empty for the default of the annotation server."""


def with_guidelines(request: RoundRequest, guidelines: str) -> RoundRequest:
    """Give a request the stage's guidelines, unless it has its own."""
    return request if request.guidelines else replace(request, guidelines=guidelines)


def request_of(found: Round, *, images: int | None = None, query: str = "") -> RoundRequest:
    """Make the request that extends a round by further images, with the round's own settings.

    Gold images are not added again.

    Raises:
        ValueError: The round is closed or cancelled; told before images are chosen and prefilled, which may take long.
    """
    check_state(found, (RoundState.OPEN, RoundState.PAUSED))
    kept = {name: found.settings[name] for name in _STORED if name in found.settings and name not in ("query", "gold")}
    return RoundRequest(stage=found.stage, images=images, query=query, **kept)


def choose_for(dataset: Dataset, workspace: Workspace, request: RoundRequest) -> list[ChosenImage]:
    """Choose the images of a round. A random choice passes over images that another round asks about.

    Raises:
        ValueError: The query is wrong, or no image is left.
    """
    if request.images is not None and request.images < 1:
        raise InvalidInput(f"images {request.images}: expected at least 1")
    dataset.fold()
    if request.query:
        return choose_images(dataset, sql_order(request.query), count=request.images)
    asked_about = workspace.rounds.asked_about()
    order = held_out_first(
        _order(dataset, workspace, request, asked_about),
        every=request.held_out_every,
        count=request.held_out_images,
        without=asked_about,
    )
    return choose_images(dataset, order, count=request.images, without=asked_about)


def _order(dataset: Dataset, workspace: Workspace, request: RoundRequest, asked_about: Collection[int]) -> Order:
    """Make the order in which a round without a query chooses."""
    if request.choose_by not in CHOOSE_BY:
        raise InvalidInput(f"choose_by {request.choose_by!r}: expected one of {', '.join(CHOOSE_BY)}")
    if request.choose_by == "random":
        return random_order(request.seed)
    # Loading torch takes seconds, which a random order need not wait for
    from engine.model.weights import load_model
    from stages.promoted import PROMOTED, find_in_dataset
    from stages.rounds.worth import worth_order

    return worth_order(
        request.choose_by,
        load_model(find_in_dataset(dataset, request.model or PROMOTED)),
        count=request.images,
        seed=request.seed,
        held_out_every=request.held_out_every,
        asked_about=asked_about,
        rounds_before=len(workspace.rounds.read_all()),
    )


def until_free(choose_and_take: Callable[[], _Taken]) -> _Taken:
    """Choose images and take them for a round, again where a round that was opened meanwhile has one of them."""
    while True:
        with suppress(ImagesTaken):
            return choose_and_take()


def make_tasks(
    dataset: Dataset,
    request: RoundRequest,
    images: Sequence[ChosenImage],
    prefilled: Mapping[int, tuple[GivenMask, ...]] | None = None,
) -> tuple[TaskSpec, ...]:
    """Make the tasks of a round: the chosen images with their prefilled masks, and the gold images among them.

    Raises:
        ValueError: The overlap or the gold query is wrong.
    """
    if request.overlap < 1 or not 0 <= request.overlap_fraction <= 1:
        raise InvalidInput(
            f"overlap {request.overlap} of a fraction {request.overlap_fraction}: expected at least 1, and 0 to 1"
        )
    rng = np.random.default_rng([request.seed, 2])
    overlapped = set(rng.permutation(len(images))[: round(len(images) * request.overlap_fraction)].tolist())
    gold = _gold_tasks(dataset, request.gold) if request.gold else []
    golden = {task.image_id for task in gold}
    tasks = [
        TaskSpec(
            image_id=image.image_id,
            height=image.height,
            width=image.width,
            overlap=request.overlap if number in overlapped else 1,
            prefill=(prefilled or {}).get(image.image_id, ()),
        )
        for number, image in enumerate(images)
        if image.image_id not in golden
    ]
    for task in gold:
        place = int(rng.integers(len(tasks) + 1))
        tasks.insert(place, replace(task, prefill=(prefilled or {}).get(task.image_id, ())))
    return tuple(tasks)


def open_round(
    workspace: Workspace,
    request: RoundRequest,
    tasks: Sequence[TaskSpec],
    *,
    client_request: ClientRequest | None = None,
    actor: str = "command line",
) -> Round:
    """Open the round in the workspace, or return the one that the same request of a client opened before.

    Raises:
        ImagesTaken: The images were chosen at random, and a round that was opened meanwhile has one of them.
        RequestReused: Another request has the id of the client's request.
        ValueError: The stage is unknown, or there are no tasks.
    """
    settings = {name: value for name, value in asdict(request).items() if name in _STORED}
    spec = RoundSpec(
        stage=request.stage,
        tasks=tuple(tasks),
        name=request.name,
        guidelines=request.guidelines,
        priority=request.priority,
        settings=settings,
    )
    return workspace.rounds.open_once(spec, client_request, alone=not request.query, actor=actor)[0]


def _gold_tasks(dataset: Dataset, query: str) -> list[TaskSpec]:
    """Read the known good masks that a query lists, as one task for each image."""
    wanted = dataset.query(query)
    if not {"image_id", "mask_id"} <= set(wanted.column_names):
        raise InvalidInput(f"the gold query gives {wanted.column_names}; expected the columns image_id and mask_id")
    pairs = set(zip(wanted["image_id"].to_pylist(), wanted["mask_id"].to_pylist(), strict=True))
    if not pairs:
        raise InvalidInput("the gold query lists no mask")
    ids = ", ".join(str(image_id) for image_id in sorted({image_id for image_id, _ in pairs}))
    rows = dataset.masks(f"image_id IN ({ids})", columns=MASK_COLUMNS).read_all().to_pylist()
    own = [row for row in rows if (row["image_id"], row["mask_id"]) in pairs]
    if len(own) < len(pairs):
        raise InvalidInput(f"{len(pairs) - len(own)} of {len(pairs)} gold masks are not in {dataset.uri}")
    by_image: dict[int, list[GivenMask]] = {}
    for mask in read_masks(dataset.store, own):
        given = GivenMask(mask=f"g{mask.mask_id}", rle=mask.rle, source=f"{mask.image_id}/{mask.mask_id}")
        by_image.setdefault(mask.image_id, []).append(given)
    return [
        TaskSpec(
            image_id=image_id,
            height=masks[0].rle.height,
            width=masks[0].rle.width,
            overlap=GOLD_VIEWS,
            gold=tuple(masks),
        )
        for image_id, masks in sorted(by_image.items())
    ]
