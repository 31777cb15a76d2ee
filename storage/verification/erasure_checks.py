"""The tars that no record names: crashed attempts may have left erased images in them."""

from collections.abc import Collection
from concurrent.futures import Executor

from storage.errors import Corrupt, NotFound
from storage.formats.tar_shards import read_shard
from storage.objects.stores import ObjectStore
from storage.protocol.erasures import Erasures
from storage.verification.faults import Faults
from storage.verification.object_checks import is_zeros, note_unerased

_UNNAMED = "run `gigamask gc --delete`, or delete it: no record names it"


def check_unnamed_tars(
    store: ObjectStore, faults: Faults, threads: Executor, erasures: Erasures, named: Collection[str]
) -> None:
    """Look for erased images in the tars that no record names.

    Args:
        store: The store of the dataset.
        faults: Faults found so far.
        threads: Threads that read.
        erasures: The dataset's erasures.
        named: Keys of the objects that records name.
    """
    if not erasures.images:
        return
    with faults.guard("data/", "make the folder readable"):
        unnamed = [key for key in store.list("data/") if key.endswith(".tar") and key not in named]
        for found in threads.map(lambda key: _check_tar(store, key, erasures), unnamed):
            for fault in found.found:
                faults.add(fault)


def _check_tar(store: ObjectStore, key: str, erasures: Erasures) -> Faults:
    faults = Faults()
    with faults.guard(key, _UNNAMED):
        try:
            with store.open(key) as stream:
                members = (member for member in read_shard(stream) if member.key in erasures.keys)
                note_unerased(faults, key, [member.key for member in members if not is_zeros(member)])
        except NotFound:
            pass  # its own worker has deleted it
        except Corrupt as error:
            raise Corrupt(f"no record names it, and an erased image may be in it ({error})") from error
    return faults
