"""The commands below `gigamask models`: names, released weights, and which model of a dataset is the promoted one."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.checks import check_dataset
from flows.cli.options import DEFAULT_DATASET, AsJson, ConfigFile, DatasetUri, DecidedBy, GateAssignments
from flows.progress import log
from storage.home import account_name, cache_folder

if TYPE_CHECKING:
    from engine.model.released import PulledModel
    from storage.protocol.promotions import Generation


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model that can be named with --model."""

    name: str
    here: bool
    """Whether the model's weights are on this machine."""
    where: str
    """Path of the weights, or the command that downloads them."""


def models_list(as_json: AsJson = False) -> None:
    """List the models that have a name, and show which of them are on this machine."""
    from flows.cli.output import print_rows

    print_rows(known_models(), as_json, empty="no model")


def models_pull(
    name: Annotated[str, typer.Argument(help="mobile, vit_b, vit_l or vit_h.")],
    base_url: Annotated[
        str | None, typer.Option(help="Address to download from.", show_default="the release's own")
    ] = None,
) -> None:
    """Download released SAM weights and check their SHA-256; a broken download is resumed."""
    pulled = pull_model(name, base_url)
    print(f"{pulled.path}\n{pulled.verification}")


def models_promote(
    model: Annotated[str, typer.Argument(help="Id of a version in the dataset, model name or weights file.")],
    data: Annotated[Path, typer.Option(help="Frozen evaluation set: images with SA-1B-style JSON beside them.")],
    dataset: DatasetUri = DEFAULT_DATASET,
    known: Annotated[
        Path | None,
        typer.Option(help="Images of what was known before, as --data.", show_default="procedural scenes"),
    ] = None,
    by: DecidedBy = None,
    reason: Annotated[str, typer.Option(help="Reason for the record.", show_default="none")] = "",
    new_set: Annotated[
        bool, typer.Option("--new-set", help="Allow another evaluation set than that of the decision before.")
    ] = False,
    config: ConfigFile = None,
    assignments: GateAssignments = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model beside the promoted one and promote it if it passes the gate; a refusal is recorded as well.

    It passes if the 95 % intervals of its gains after 1 and 3 clicks lie above 0, and no domain, nothing known before,
    calibration, latency or size gets worse than the limits allow.
    """
    log(f"promote: {model} of {dataset}, measured on {data}")
    check_dataset(dataset)
    if not data.is_dir():
        raise ValueError(f"{data}: no such folder; expected one with images and their JSON files")
    from flows.cli.output import print_result
    from flows.config.gate import load_gate_settings

    settings = load_gate_settings(file=config, assignments=assignments)
    from engine.labelled import load_folder
    from stages.training.gate import Candidacy, decide
    from storage.dataset import Dataset

    asked = Candidacy(
        candidate=model,
        images=load_folder(data),
        place=str(data),
        known=load_folder(known) if known else (),
        made_by=by or account_name(),
        reason=reason,
        new_set=new_set,
        settings=settings,
        work_folder=cache_folder("gate"),
    )
    generation = decide(Dataset.open(dataset), asked, log)
    print_result(describe_generation(generation), as_json)


def models_rollback(
    dataset: DatasetUri = DEFAULT_DATASET,
    to: Annotated[
        str | None, typer.Option(help="Id of a model that was promoted before.", show_default="the one before")
    ] = None,
    by: DecidedBy = None,
    reason: Annotated[str, typer.Option(help="Reason for the record.", show_default="none")] = "",
    as_json: AsJson = False,
) -> None:
    """Make an earlier model the promoted one again; annotation servers follow within a minute."""
    log(f"rollback: {dataset}")
    from flows.cli.output import print_result
    from storage.dataset import Dataset
    from storage.protocol.promotions import roll_back

    generation = roll_back(Dataset.open(dataset).promotions, to, by or account_name(), reason)
    print_result(describe_generation(generation), as_json)


def models_history(dataset: DatasetUri = DEFAULT_DATASET, as_json: AsJson = False) -> None:
    """List every promotion, refusal and rollback of a dataset; --json adds all measurements."""
    from flows.cli.output import print_rows
    from storage.dataset import Dataset

    history = Dataset.open(dataset).promotions.history()
    if as_json:
        print(json.dumps([asdict(generation) for generation in history], default=str))
        return
    print_rows([_summarise(generation) for generation in history], as_json, empty="nothing was promoted yet")


@dataclass(frozen=True, kw_only=True)
class DescribedGeneration:
    """One decision about the promoted model, as the commands print it."""

    generation: int
    decision: str
    model: str
    """Id of the model that was decided about."""
    promoted: str
    """Id of the model that is promoted from then on."""
    over: str
    """Id of the promoted model that the decision was made against."""
    made_by: str
    made_at: datetime
    reason: str
    checks: tuple[str, ...]
    """What each check of the gate found; empty where nothing was measured."""


@dataclass(frozen=True, kw_only=True)
class GenerationLine:
    """One decision as a line of `gigamask models history`."""

    generation: int
    decision: str
    model: str
    promoted: str
    made_by: str
    made_at: str
    reason: str


def describe_generation(generation: "Generation") -> DescribedGeneration:
    """Describe a generation with what each check of the gate found."""
    return DescribedGeneration(
        generation=generation.number,
        decision=generation.decision,
        model=generation.model_id,
        promoted=generation.promoted,
        over=generation.over,
        made_by=generation.made_by,
        made_at=generation.made_at,
        reason=generation.reason,
        checks=generation.findings,
    )


def _summarise(generation: "Generation") -> GenerationLine:
    return GenerationLine(
        generation=generation.number,
        decision=generation.decision,
        model=generation.model_id,
        promoted=generation.promoted,
        made_by=generation.made_by,
        made_at=f"{generation.made_at:%Y-%m-%d %H:%M}",
        reason=generation.reason,
    )


def known_models() -> list[KnownModel]:
    """List the seed model, which ships with gigamask, then the released models by size."""
    from engine.model.find import PRETRAINED_FOLDER
    from engine.model.released import RELEASED, models_folder

    released = [
        KnownModel(
            name=name,
            here=(path := models_folder() / model.file_name).is_file(),
            where=str(path) if path.is_file() else f"gigamask models pull {name}",
        )
        for name, model in RELEASED.items()
    ]
    seed = PRETRAINED_FOLDER / "seed.safetensors"
    return [KnownModel(name="seed", here=seed.is_file(), where=str(seed)), *released]


def pull_model(name: str, base_url: str | None) -> "PulledModel":
    """Download a released model with a progress bar on stderr.

    Raises:
        ValueError: There is no such released model.
        StoreError: The download failed or is damaged.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from engine.model.released import pull

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        return pull(
            name,
            base_url=base_url,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
