"""Which photographs a dataset holds."""

from itertools import takewhile

from stages.ingest.normalise import Unusable
from stages.ingest.plan import image_plans
from storage.dataset import Dataset
from storage.protocol.inputs import PhotoKey, photo_inputs
from storage.protocol.plans import Plan
from storage.records import image_id_of


class Known:
    """Which photographs the dataset holds; tells a duplicate from a photograph that was merely looked at again."""

    def __init__(self, dataset: Dataset) -> None:
        self._digests = dataset.known_image_ids()
        self._plans = image_plans(dataset)
        self._plan_id = ""
        self._planned_before: dict[
            tuple[str, int], bool
        ] = {}  # name and size: whether a plan of the same settings has it

    def begin(self, plan: Plan) -> None:
        """From now on photographs are of this plan."""
        if plan.plan_id != self._plan_id:
            older = takewhile(lambda other: other.plan_id != plan.plan_id, self._plans)
            self._planned_before = {}
            for each in older:
                same = each.settings == plan.settings
                for name in (key.name_and_size for shard in each.shards for key in photo_inputs(shard.inputs)):
                    self._planned_before[name] = same or self._planned_before.get(name, False)
            self._plan_id = plan.plan_id

    def holds(self, sha256: str) -> bool:
        return self._digests.get(image_id_of(sha256)) == bytes.fromhex(sha256)

    def only_of_other_settings(self, key: PhotoKey) -> bool:
        """Whether earlier plans have the photograph, and all of them other settings."""
        return not self._planned_before.get(key.name_and_size, True)

    def take(self, key: PhotoKey, sha256: str) -> str | Unusable:
        """ "new" (and held from now on), "unchanged", or why the photograph is not taken."""
        image_id = image_id_of(sha256)
        held, digest = self._digests.get(image_id), bytes.fromhex(sha256)
        if held is None:
            self._digests[image_id] = digest
            return "new"
        if held != digest:
            return Unusable("id_clash", f"the first 63 bits are those of another image, SHA-256 {held.hex()}")
        if key.name_and_size in self._planned_before:
            return "unchanged"
        return Unusable("duplicate", f"the same bytes as image_id {image_id}")
