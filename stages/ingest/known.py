"""Known photos of a dataset: they tell a new photo from an unchanged one and from a duplicate."""

from enum import Enum
from itertools import takewhile

from stages.ingest.normalise import Unusable
from stages.ingest.plan import image_plans
from storage.dataset import Dataset
from storage.protocol.commits import Commit
from storage.protocol.inputs import PhotoKey, photo_inputs
from storage.protocol.plans import Plan
from storage.records import ERASED, image_id_of
from storage.tables.sql import is_shard


class Verdict(Enum):
    """Relation of a usable photo to the dataset."""

    NEW = "new"
    """Photo whose bytes the dataset does not hold yet."""
    UNCHANGED = "unchanged"
    """Photo whose bytes the dataset holds and that another plan names."""


class KnownPhotos:
    """Photos that the dataset holds, to judge the photos of one plan at a time."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._committed = set(dataset.image_addresses())
        self._digests = dataset.known_image_ids()
        self._erased = dataset.erasures().images
        self._plans = image_plans(dataset)
        self._plan_id = ""
        self._new_here: set[int] = set()  # ids of the photos of the shard at hand that were new
        # Name and size of each photo of earlier plans; whether one of those plans has the settings of the plan at hand.
        self._planned_before: dict[tuple[str, int], bool] = {}
        self._planned_later: set[PhotoKey] = set()  # by a call that could not make the shard at hand

    def start_shard(self, plan: Plan) -> None:
        """Set the plan of the shard whose photos are judged from now on."""
        self._new_here = set()
        if plan.plan_id == self._plan_id:
            return
        self._plan_id = plan.plan_id
        self._planned_before = {}
        earlier_plans = list(takewhile(lambda other: other.plan_id != plan.plan_id, self._plans))
        later = self._plans[len(earlier_plans) + 1 :]
        later_plans = [other for other in later if other.redoes != (plan.redoes or plan.plan_id)]
        self._planned_later = {
            key for later in later_plans for shard in later.shards for key in photo_inputs(shard.inputs)
        }
        for earlier in earlier_plans:
            same_settings = earlier.settings == plan.settings
            for name in (key.name_and_size for shard in earlier.shards for key in photo_inputs(shard.inputs)):
                self._planned_before[name] = same_settings or self._planned_before.get(name, False)

    def refresh(self) -> set[int]:
        """Look for image shards that other processes committed meanwhile, and return the image ids of these shards."""
        new = [address for address in self._dataset.image_addresses() if address not in self._committed]
        self._committed.update(new)
        found = self._dataset.image_ids_of(new)
        self._digests.update(found)
        self._erased = self._dataset.erasures().images
        self._new_here -= found.keys()
        return set(found)

    def count_held(self, shard: Commit) -> int:
        """Count the images of a shard that were not erased."""
        return sum(image_id not in self._erased for image_id in self._dataset.image_ids_in(shard))

    def forget(self, shard: Commit) -> None:
        """Treat a shard's images as lost, so that the photos of these images count as new."""
        self._dataset.fold()  # its rows may be in no table yet
        rows = self._dataset.query(f"SELECT image_id FROM images WHERE {is_shard(shard.plan_id, shard.shard)}")
        for image_id in rows.column("image_id").to_pylist():
            self._digests.pop(image_id, None)

    def give_back(self) -> None:
        """Treat the photos that were new in this shard as new again, because the shard could not be made."""
        for image_id in self._new_here:
            self._digests.pop(image_id, None)

    def holds(self, sha256: str) -> bool:
        """Tell whether an image was made from a file with this SHA-256, erased or not; any thread may call this."""
        return image_id_of(sha256) in self._erased or self._digests.get(image_id_of(sha256)) == bytes.fromhex(sha256)

    def has_only_other_settings(self, key: PhotoKey) -> bool:
        """Tell whether earlier plans name the photo and all these plans have other settings."""
        return not self._planned_before.get(key.name_and_size, True)

    def take(self, key: PhotoKey, sha256: str) -> Verdict:
        """Judge a photo by its bytes; from now on a new photo counts as held by the dataset.

        Raises:
            Unusable: The dataset holds these bytes under another name, another image has the same id, or the image was
                erased.
        """
        image_id, digest = image_id_of(sha256), bytes.fromhex(sha256)
        if image_id in self._erased:
            raise Unusable(ERASED, str(self._erased[image_id]))
        held = self._digests.get(image_id)
        if held is None:
            self._digests[image_id] = digest
            self._new_here.add(image_id)
            return Verdict.NEW
        if held != digest:
            raise Unusable("id_clash", f"the first 63 bits are those of another image, SHA-256 {held.hex()}")
        if key.name_and_size in self._planned_before or key in self._planned_later:
            return Verdict.UNCHANGED
        raise Unusable("duplicate", f"the same bytes as image_id {image_id}")
