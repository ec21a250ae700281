"""The engine: questions in, label logits out. One base, its adapters, one packed forward for each of them.

Read it in this order:

1. `tree`: token sequences become a prefix tree. What begins alike is computed once.
2. `forward`: a tree and its pictures become tensors, hidden states, and the logits of the letters.
3. `packed`: a loaded model answers trees with every adapter. It builds on `attention` and `linear`.
4. `reference`: the oracle. One prompt through transformers' own forward, which the engine must agree with.
5. `costs`, `batches` and `scorer`: rows become batches; logits become an `OptionLogits`. `guard` holds a row to the
   oracle.
6. `buckets` and `graphs`: on a card the forward passes of small batches are recorded, and launched as one.

`loading` and `device_map` put the base on a device, or on several. `families` says where a network keeps its parts.
"""

from typing import Any

# A model of transformers. `Any`, since torch types every attribute of a module as `Tensor | Module`.
Network = Any
