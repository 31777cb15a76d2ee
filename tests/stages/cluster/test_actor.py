from functools import partial
from pathlib import Path

from ray import cloudpickle

from engine.automatic.config import GenerateConfig
from engine.model.weights import load_model
from stages.cluster.actor import ShardActor
from stages.cluster.progress import ActorStatus
from stages.fully_automatic.outcomes import MaskedImage, ShardResult
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardWorker
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
from storage.records import Reject

CONFIG = GenerateConfig(points_per_side=3, predicted_iou_threshold=-100.0, min_region_px=0, max_area_fraction=None)


class Heard:
    """Meters that a test can read; `asked` is what the actor says of itself at each photograph."""

    def __init__(self) -> None:
        self.images: list[MaskedImage | Reject] = []
        self.shards: list[ShardResult] = []
        self.asked: list[ActorStatus] = []
        self.actor: ShardActor | None = None

    def count_image(self, plan_id: str, outcome: MaskedImage | Reject) -> None:
        self.images.append(outcome)
        assert self.actor is not None
        self.asked.append(self.actor.status())

    def count_shard(self, result: ShardResult) -> None:
        self.shards.append(result)


def test_an_actor_counts_what_it_does_while_it_does_it(dataset: Dataset, photo_folder: Path, tiny_model: Path) -> None:
    ingest_photos([photo_folder], dataset)
    (plan,) = plan_masks(dataset, load_model(tiny_model).identity, CONFIG, images_per_shard=4)
    heard = Heard()
    make_worker = cloudpickle.dumps(partial(ShardWorker, tiny_model, CONFIG, dataset.uri))
    actor = heard.actor = ShardActor(make_worker, dataset.uri, 1, lambda: heard)
    results = [actor.mask_shard(plan.plan_id, shard.name) for shard in plan.shards]
    assert heard.shards == results
    assert len(heard.images) == 8
    assert heard.asked[1].counts[plan.shards[0].name].images == 2
    assert list(heard.asked[-1].counts) == [plan.shards[1].name]
    assert actor.status().counts == {}
    actor.mask_shard(plan.plan_id, plan.shards[0].name)  # is there already: nothing more is counted
    assert (len(heard.shards), len(heard.images)) == (2, 8)
