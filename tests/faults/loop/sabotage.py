"""Ways to break the loop. The harness must notice each.

Each takes a `patch` that is called like `setattr`.
"""

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import update

from flows import assisted_manual
from stages.rounds import close
from stages.training import gate, retrain, train_job
from storage.dataset import Dataset
from storage.protocol.promotions import Decided
from storage.workspace.schema import ROUNDS

Patch = Callable[[Any, str, Any], None]


def close_twice(patch: Patch) -> None:
    """Closing forgets that a round has its plan and was closed, and closes it again by another plan."""
    real, real_plan = close.close_round, Dataset.new_plan

    def new_plan(self: Dataset, kind: Any, shards: Any, settings: Any) -> Any:
        more = {"attempt": uuid.uuid4().hex} if "round_id" in settings else {}
        return real_plan(self, kind, shards, {**settings, **more})

    def close_again(dataset: Any, workspace: Any, round_id: str, **more: Any) -> Any:
        real(dataset, workspace, round_id, **more)
        with workspace.rounds._database.write() as connection:
            found = update(ROUNDS).where(ROUNDS.c.round_id == round_id)
            connection.execute(found.values(plan_id="", state="open", closed_at=None))
        return real(dataset, workspace, round_id, **more)

    patch(assisted_manual, "close_stage_round", close_again)
    patch(Dataset, "new_plan", new_plan)


def train_another_model(patch: Patch) -> None:
    """A training with new masks starts from the newest model but the promoted one, if there is one."""
    real = train_job.train_job

    def train(job: Any, *some: Any) -> Any:
        others = [each for each in Dataset.open(job.dataset).models.ids() if each != job.parent]
        if others and job.data.replay_fraction < 1:
            job = replace(job, parent=others[-1])
        return real(job, *some)

    patch(retrain, "train_job", train)


def decide_twice(patch: Patch) -> None:
    """A decision by measurement is written again under another key."""
    real = gate._record

    def record(dataset: Any, decided: Decided) -> Any:
        made = real(dataset, decided)
        dataset.promotions.add(replace(decided, key=f"{decided.key}-again", over=made.promoted))
        return made

    patch(gate, "_record", record)


KINDS: dict[str, Callable[[Patch], None]] = {
    "closing": close_twice,
    "training": train_another_model,
    "deciding": decide_twice,
}
