"""The `gigamask` command, with every photograph that a worker begins written down: `... FILE masks --dataset D`.

So work done twice is counted from outside. And none takes less than a quarter of a second, so that a kill finds work
in hand. Nothing else differs from the command.
"""

import sys
import time
from pathlib import Path

from flows.cli import environment

environment.prepare()

from flows import fully_automatic  # noqa: E402
from flows.cli import main as cli  # noqa: E402
from stages.fully_automatic.outcomes import MaskedImage  # noqa: E402
from stages.fully_automatic.worker import ShardWorker  # noqa: E402
from storage.protocol.plans import Plan, PlannedShard  # noqa: E402
from storage.records import ImageRecord, Reject  # noqa: E402


class Counting(ShardWorker):
    """Appends a line for each photograph it begins, and takes its time."""

    begun: Path
    at_least_s = 0.25

    def mask_image(self, plan: Plan, shard: PlannedShard, image: ImageRecord, data: bytes) -> MaskedImage | Reject:
        with self.begun.open("a") as file:
            file.write(f"{shard.name} {image.key}\n")
        time.sleep(self.at_least_s)
        return super().mask_image(plan, shard, image, data)


if __name__ == "__main__":
    Counting.begun = Path(sys.argv.pop(1))
    vars(fully_automatic)["ShardWorker"] = Counting
    cli.main()
