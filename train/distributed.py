"""One training in several processes: each learns from its share of every step's rows, and their gradients are added up.

A row weighs the same whoever has it: its loss, of its one answer token, is divided by the rows of the whole step. So a
step is that of one process, but for the order of sums and which dropout is drawn.
"""

from collections.abc import Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from scoring.engine.batches import TokenCost, tokens_in
from scoring.run.processes import ProcessError, Processes
from scoring.run.shards import assign_batches

LIMIT = timedelta(seconds=300)  # of one sum, once all have come to it


class Together:
    """The processes of a training, which all make the same calls in the same order. Alone, each call gives what is its
    own. Raises ProcessError where another process failed or is gone."""

    def __init__(self, processes: Processes, device: torch.device, name: str):
        self.processes, self.device, self.name, self.sums = processes, device, name, 0
        if processes.count > 1:
            backend = "nccl" if device.type == "cuda" else "gloo"
            store = dist.PrefixStore(f"{name}/sums", processes.store)
            processes.barrier(f"{name}/begin")  # who waits in there would not hear that another failed while loading
            dist.init_process_group(
                backend, store=store, rank=processes.rank, world_size=processes.count, timeout=LIMIT
            )

    def share(self, costs: Sequence[TokenCost]) -> list[int]:
        """Which of a step's rows are this process's: as many tokens as the others', those of a picture together."""
        pictures: dict[object, list[int]] = {}
        for row, cost in enumerate(costs):
            pictures.setdefault(cost.picture, []).append(row)
        groups = list(pictures.values())
        own = self.own([tokens_in(costs[row] for row in rows) for rows in groups])
        return sorted(row for group in own for row in groups[group])

    def own(self, tokens: Sequence[int]) -> list[int]:
        """Which of some batches are this process's."""
        return assign_batches(tokens, (self.processes.rank + 1, self.processes.count))

    def add_gradients(self, weights: list[torch.Tensor], *values: float) -> list[float]:
        """Every weight's gradient becomes the sum of all processes'; so do `values`, which are returned."""
        if self.processes.count == 1:
            self.processes.raise_fault()
            return list(values)
        grads = [weight.grad if weight.grad is not None else torch.zeros_like(weight) for weight in weights]
        flat = torch.cat([*(grad.flatten() for grad in grads), torch.tensor(values, device=self.device)])
        self._sum(flat)
        *parts, sums = flat.split([*(weight.numel() for weight in weights), len(values)])
        for weight, part in zip(weights, parts):
            weight.grad = part.view_as(weight)
        return sums.tolist()

    def add(self, values: np.ndarray) -> np.ndarray:
        """The sum of all processes' arrays, float64."""
        if self.processes.count == 1:
            return values
        found = torch.from_numpy(values.astype(np.float64)).to(self.device)
        self._sum(found)
        return found.cpu().numpy()

    def any(self, own: bool) -> bool:
        """Whether it is so for any process."""
        return bool(self.add(np.array([float(own)]))[0])

    def same(self, tensors: list[torch.Tensor]) -> None:
        """The first process's values for all."""
        if self.processes.count > 1:
            with self._all():
                for tensor in tensors:
                    dist.broadcast(tensor.detach(), 0)

    def close(self) -> None:
        """After a training that ended well; one that did not leaves no time for it."""
        if self.processes.count > 1:
            with self._all():
                dist.destroy_process_group()

    def _sum(self, tensor: torch.Tensor) -> None:
        with self._all():
            dist.all_reduce(tensor)

    @contextmanager
    def _all(self):
        """None goes into a collective before all have come to it: who waits here hears of faults, in there not."""
        self.sums += 1
        self.processes.barrier(f"{self.name}/{self.sums}")
        try:
            yield
        except RuntimeError as error:  # of NCCL or gloo
            reason = str(error).strip().split("\n")[0]
            raise ProcessError(f"a sum over all processes broke off ({reason}); start all again") from None
