"""One training in several processes: each learns from its share of every step's rows, and their gradients are summed.

A row has the same weight in any process: its loss, of its one answer token, is divided by the rows of the whole step.
So a step equals that of one process, except for the order of sums and the dropout that is drawn.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.distributed_c10d import PrefixStore

from scoring.engine.costs import TokenCost, tokens_in
from scoring.run.processes import ProcessError, Processes
from scoring.run.shards import assign_batches

TIMEOUT = timedelta(seconds=300)  # of one collective, once all processes have reached it


class TrainingGroup:
    """The processes of one training, which make the same calls in the same order. A single process sums nothing.

    Raises ProcessError where another process failed or is gone.
    """

    def __init__(self, processes: Processes, device: torch.device, name: str):
        self.processes, self.device, self.name = processes, device, name
        self.collectives = 0  # so far
        if processes.count > 1:
            backend = "nccl" if device.type == "cuda" else "gloo"
            store = PrefixStore(f"{name}/sums", processes.store)
            processes.barrier(f"{name}/begin")  # inside the next call a process would not hear that another one failed
            dist.init_process_group(
                backend, store=store, rank=processes.rank, world_size=processes.count, timeout=TIMEOUT
            )

    def assign_rows(self, costs: Sequence[TokenCost]) -> list[int]:
        """This process's rows of a step: about as many tokens as the others', the rows of a picture together."""
        rows_of_picture: dict[object, list[int]] = {}
        for row, cost in enumerate(costs):
            rows_of_picture.setdefault(cost.picture, []).append(row)
        groups = list(rows_of_picture.values())
        assigned = self.assign_batches([tokens_in(costs[row] for row in rows) for rows in groups])
        return sorted(row for index in assigned for row in groups[index])

    def assign_batches(self, tokens: Sequence[int]) -> list[int]:
        """The indices of this process's batches, given the tokens of each batch."""
        return assign_batches(tokens, (self.processes.rank + 1, self.processes.count))

    def sum_gradients(self, weights: Sequence[torch.Tensor], *values: float) -> list[float]:
        """Set every weight's gradient to the sum over all processes; return the sums of `values`."""
        if self.processes.count == 1:
            self.processes.count_step()
            return list(values)
        gradients = [weight.grad if weight.grad is not None else torch.zeros_like(weight) for weight in weights]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor(values, device=self.device)])
        self._all_reduce(flat)
        *summed, totals = torch.split(flat, [*(weight.numel() for weight in weights), len(values)])
        for weight, gradient in zip(weights, summed):
            weight.grad = gradient.view_as(weight)
        return [float(total) for total in totals.tolist()]

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of all processes' arrays."""
        if self.processes.count == 1:
            return values
        total = torch.from_numpy(values.astype(np.float64)).to(self.device)
        self._all_reduce(total)
        summed: NDArray[np.float64] = total.cpu().numpy()
        return summed

    def any_process(self, value: bool) -> bool:
        """Whether `value` is true in any process."""
        return bool(self.sum(np.array([float(value)]))[0])

    def broadcast(self, tensors: Sequence[torch.Tensor]) -> None:
        """Set the tensors of all processes to the first one's values."""
        if self.processes.count > 1:
            with self._collective():
                for tensor in tensors:
                    dist.broadcast(tensor.detach(), 0)

    def close(self) -> None:
        """After a training that ended well; one that failed leaves no time for it."""
        if self.processes.count > 1:
            with self._collective():
                dist.destroy_process_group()

    def _all_reduce(self, tensor: torch.Tensor) -> None:
        with self._collective():
            dist.all_reduce(tensor)

    @contextmanager
    def _collective(self) -> Iterator[None]:
        """Wait for all processes before a collective: here a process hears of faults, in the collective it does not."""
        self.collectives += 1
        self.processes.barrier(f"{self.name}/{self.collectives}")
        try:
            yield
        except RuntimeError as error:  # of NCCL or gloo
            reason = str(error).strip().split("\n")[0]
            raise ProcessError(f"a sum over all processes failed ({reason}); start all of them again") from None
