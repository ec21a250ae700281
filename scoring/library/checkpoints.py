"""`soup`, `export` and `describe` as functions: what can be done with a checkpoint but score."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.checkpoints.description import Description
from scoring.checkpoints.description import describe as describe_checkpoint
from scoring.errors import CallError
from scoring.library.arguments import Progressed, names_of
from scoring.library.messages import ProgressOf, say_to_log
from scoring.library.wording import for_callers

if TYPE_CHECKING:
    from scoring.checkpoints.export import Exported

DTYPES = ("bf16", "fp16", "fp32")
QUANTIZATIONS = (None, "nf4", "none")


@for_callers
def soup(
    checkpoints: str | Path | Sequence[str | Path],
    out: str | Path,
    weights: Sequence[float] | None = None,
    base: str | Path | None = None,
) -> Path:
    """Write the exact average of adapters into the folder `out`, as one adapter that scores as fast as one; returns it.

    checkpoints: two or more, or a folder of folds, over one base and with one prompt. weights: one for each, equal
    where not given. base: in place of the one that they name. The average has no calibration.

    Raises CheckpointError where they cannot be averaged, or `out` holds files.

    >>> soup(["ckpt/fold0", "ckpt/fold1"], "ckpt/soup", weights=[0.7, 0.3])  # doctest: +SKIP
    PosixPath('ckpt/soup')
    """
    from scoring.checkpoints.soup import soup as average

    numbers = None if weights is None else [float(weight) for weight in weights]
    if numbers and not all(map(math.isfinite, numbers)):
        raise CallError(f"weights={numbers}: expected finite numbers")
    for note in average(names_of(checkpoints), Path(out), numbers, None if base is None else str(base)):
        say_to_log(note)
    return Path(out)


@for_callers
def export(  # noqa: PLR0913 - each by its name, as the command's options
    ckpt: str | Path,
    out: str | Path,
    *,
    dtype: str = "bf16",
    base: str | Path | None = None,
    quantization: str | None = None,
    adapter_only: bool = False,
    base_name: str | None = None,
    progress: Progressed | None = None,
) -> "Exported":
    """Write base and adapter as one model into the new folder `out`, for other engines too.

    dtype: `bf16`, `fp16` or `fp32`. base: in place of the one that the checkpoint names. quantization: of the base that
    the adapter is added to, `nf4` or `none`; None as `score` uses it. adapter_only: copy only the adapter and what
    scoring needs, its base named by the hub id `base_name`, or by the one that is known. progress: called with (bytes
    written, bytes of all weights).

    Returns what was written, with notes. Raises CheckpointError where the checkpoint cannot be scored, `out` holds
    files, or the disk has no room.

    >>> export("ckpt/fold0", "model", dtype="fp16").size  # doctest: +SKIP
    """
    if base_name and not adapter_only:
        raise CallError("base_name is for adapter_only=True; add that, or leave base_name out")
    for name, value, known in (("dtype", dtype, DTYPES), ("quantization", quantization, QUANTIZATIONS)):
        if value not in known:
            raise CallError(f"{name}={value!r}: expected {' or '.join(map(repr, known))}")
    from scoring.checkpoints.export import ExportOptions, export_adapter, export_model

    chosen = None if base is None else str(base)
    if adapter_only:
        exported = export_adapter(str(ckpt), Path(out), base_name, chosen)
    else:
        bar = ProgressOf(progress) if progress else None
        exported = export_model(str(ckpt), Path(out), chosen, ExportOptions(dtype, quantization), bar)
    for note in exported.notes:
        say_to_log(note)
    return exported


@for_callers
def describe(ckpt: str | Path, base: str | Path | None = None) -> Description:
    """Everything about a checkpoint, from its small files and the headers of its weights: no model is loaded.

    base: in place of the one that it names. `rows` are names and values; `faults` what keeps it from being scored;
    `text` is what `show` prints. Raises CheckpointError where there is no checkpoint.

    >>> describe("demo/checkpoints/fold0").faults
    []
    """
    return describe_checkpoint(read_checkpoint(str(ckpt), None if base is None else str(base)))
