"""Measures what a piece of work takes: seconds, the largest memory of card and process, and the card's energy."""

import threading
import time
from types import TracebackType

import psutil
import torch

SAMPLE_SECONDS = 0.05  # between two samples of the process's memory


class Meter:
    """`with Meter(device) as meter:` measures the block; then read `seconds`, `device_bytes`, `host_bytes`, `joules`.

    device_bytes and joules are None without a card, joules also where the card does not count its energy (before Volta)
    or NVML is missing. host_bytes is the largest memory of the whole process, sampled every 50 ms.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds, self.host_bytes = 0.0, 0
        self.device_bytes: int | None = None
        self.joules: float | None = None
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample_memory, daemon=True)
        self._start = 0.0
        self._joules_before: float | None = None

    def __enter__(self) -> "Meter":
        self._sampler.start()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        self._joules_before = card_joules(self.device)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.device_bytes = torch.cuda.max_memory_allocated(self.device)
        self.seconds = time.perf_counter() - self._start
        joules = card_joules(self.device)
        if joules is not None and self._joules_before is not None:
            self.joules = joules - self._joules_before
        self._done.set()
        self._sampler.join()

    def _sample_memory(self) -> None:
        process = psutil.Process()
        while True:
            self.host_bytes = max(self.host_bytes, process.memory_info().rss)
            if self._done.wait(SAMPLE_SECONDS):
                return


def card_joules(device: torch.device) -> float | None:
    """The energy in joules that the card has used since its driver was loaded; None where nothing counts it."""
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)
    except Exception:  # no NVML, another kind of card, a card that does not count
        return None
