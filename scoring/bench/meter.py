"""What a stretch of work takes: seconds, the most memory of card and process, and the card's energy."""

import threading
import time

import psutil
import torch

EVERY = 0.05  # seconds between two looks at the process's memory


class Meter:
    """`with Meter(device) as meter:` — then `seconds`, `device_bytes`, `host_bytes` and `joules`.

    device_bytes and joules are None without a card, joules also where the card does not tell its energy (before
    Volta) or NVML is missing. host_bytes is the whole process's, looked at every 50 ms.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds, self.host_bytes = 0.0, 0
        self.device_bytes: int | None = None
        self.joules: float | None = None

    def __enter__(self) -> "Meter":
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        self._energy = card_joules(self.device)
        self._start = time.perf_counter()
        return self

    def __exit__(self, *failed) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.device_bytes = torch.cuda.max_memory_allocated(self.device)
        self.seconds = time.perf_counter() - self._start
        after = card_joules(self.device)
        if after is not None and self._energy is not None:
            self.joules = after - self._energy
        self._done.set()
        self._watch.join()

    def _look(self) -> None:
        process = psutil.Process()
        while True:
            self.host_bytes = max(self.host_bytes, process.memory_info().rss)
            if self._done.wait(EVERY):
                return


def card_joules(device: torch.device) -> float | None:
    """What the card has used since its driver was loaded."""
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
    except Exception:  # no NVML, another kind of card, a card that does not count
        return None
