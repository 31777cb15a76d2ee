"""Options that several commands share, each declared once. A single command's own options are in its signature."""

from pathlib import Path
from typing import Annotated

import typer

from flows.orchestration import PREFECT_URL

DEFAULT_DATASET = "gigamask-dataset"

DatasetUri = Annotated[str, typer.Option("--dataset", help="Folder or s3:// prefix of the dataset.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
WorkspacePlace = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        help="SQLite file or postgresql:// URL of the annotation state.",
        show_default="workspace.sqlite in the dataset",
    ),
]

# Settings

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting: generate.points_per_side=16. Repeatable."),
]
TrainAssignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting: train.learning_rate=1e-4. Repeatable."),
]

GateAssignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting: gate.max_domain_drop=0.01. Repeatable."),
]
DecidedBy = Annotated[
    str | None, typer.Option("--by", help="Who decides, for the record.", show_default="the account's name")
]

# What makes the masks

ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Model name (`gigamask models list`), weights file, version of the dataset, or promoted.",
        show_default="seed",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option("--preset", help="grid: a 32x32 grid of points; paper: 1 + 4 + 16 crops.", show_default="grid"),
]
Precision = Annotated[
    str | None,
    typer.Option("--precision", help="fp32, or bf16: faster, and outlines change a little.", show_default="fp32"),
]

# Where it runs

RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", help="Ray cluster to run on, e.g. auto.", show_default="this machine"),
]
PrefectUrl = Annotated[
    str | None,
    typer.Option(
        "--prefect-url",
        envvar=PREFECT_URL,
        help="Prefect server that records the flow, e.g. http://head:4200/api.",
        show_default="none",
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu or cuda.", show_default="cuda where this machine has a GPU")
]
Steps = Annotated[int | None, typer.Option("--steps", help="Training steps.", min=1, show_default="the recipe's")]
