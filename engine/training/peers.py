"""Processes that train one model together: each takes its part of every batch, and all average their gradients.

On CPUs several processes of one thread are faster than one process of several threads (2 x 1 thread: 12.8 images/s; 1 x
2 threads: 6.3 to 7.1), since threads wait for each other at every small operator and gain nothing there.
"""

import datetime
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

PEER_TIMEOUT = datetime.timedelta(minutes=10)
"""Time after which a silent process counts as dead; making a missing chunk of scenes can take a minute."""


@dataclass(frozen=True, kw_only=True)
class Peers:
    """Place of this process among the processes that train together."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"
    """Device of this process: "cpu", "cuda" or "cuda:1"."""

    def positions_of(self, batch_size: int) -> range:
        """Choose the positions of the global batch, of `batch_size` images, that this process computes.

        Raises:
            ValueError: The batch cannot be divided evenly among the processes.
        """
        if batch_size % self.count:
            raise ValueError(f"a batch of {batch_size} images does not divide among {self.count} processes")
        share = batch_size // self.count
        return range(self.rank * share, (self.rank + 1) * share)

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in place and in one exchange."""
        if self.count == 1 or not tensors:
            return
        self.sum(tensors)
        torch._foreach_div_(tensors, self.count)

    def check_same(self, number: int, what: str) -> None:
        """Check that all processes hold the same number.

        Raises:
            ValueError: The processes hold different numbers; every process raises this error.
        """
        if self.count == 1:
            return
        numbers = torch.zeros(self.count, dtype=torch.int64, device=self.device)
        numbers[self.rank] = number
        dist.all_reduce(numbers)
        if len(set(numbers.tolist())) > 1:
            raise ValueError(f"{what} differs between the processes, {numbers.tolist()}: expected all to be the same")

    def sum(self, tensors: list[Tensor]) -> None:
        """Replace each floating-point tensor by its sum over the processes, in place and in one exchange."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view(tensor.shape))


def check_device(device: str, processes: int) -> None:
    """Check that `processes` processes can use a device.

    Raises:
        ValueError: The machine has no such device, or fewer GPUs than processes.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r}: expected cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: torch finds no GPU here; install torch for CUDA, or train with cpu")
    if device == "cuda" and processes > torch.cuda.device_count():
        raise ValueError(f"{processes} processes, but {torch.cuda.device_count()} GPUs: expected at most one each")


def join_peers(rank: int, count: int, meeting_file: Path, device: str = "cpu") -> Peers:
    """Join the other processes through a file that was never used before, and return the place of this process.

    On "cuda" the process of rank r takes GPU r.
    """
    if device == "cuda" and count > 1:
        torch.cuda.set_device(rank)
        device = f"cuda:{rank}"
    if count > 1:
        backend = "nccl" if device.startswith("cuda") else "gloo"
        dist.init_process_group(
            backend, init_method=f"file://{meeting_file}", rank=rank, world_size=count, timeout=PEER_TIMEOUT
        )
    return Peers(rank=rank, count=count, device=device)


def run_with_peers(count: int, work: Callable[[Peers], None], device: str = "cpu") -> None:
    """Run `work` (a picklable function) in `count` processes on this machine, and wait for all.

    With `count` 1 the work runs in the calling process. Otherwise each process has one thread, and a process that fails
    or is killed ends the other processes.

    Raises:
        ValueError: The machine has no such device, or fewer GPUs than processes.
    """
    check_device(device, count)
    if count == 1:
        work(Peers(device=device))
        return
    with tempfile.TemporaryDirectory() as folder:
        spawn(_peer_main, (count, Path(folder) / "meeting", work, device), nprocs=count)


def _peer_main(rank: int, count: int, meeting_file: Path, work: Callable[[Peers], None], device: str) -> None:
    torch.set_num_threads(1)
    peers = join_peers(rank, count, meeting_file, device)
    try:
        work(peers)
    finally:
        dist.destroy_process_group()
