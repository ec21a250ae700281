"""What a stretch of work takes."""

import numpy as np
import torch

from scoring.benchmark.meter import Meter


def test_the_meter_sees_memory_that_is_given_back():
    with Meter(torch.device("cpu")) as meter:
        block = np.ones(40_000_000)  # 320 MB
        del block
    before = meter.host_bytes
    with Meter(torch.device("cpu")) as meter:
        pass
    assert before - meter.host_bytes > 2e8 and meter.seconds >= 0
