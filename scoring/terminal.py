"""What a person sees in the terminal: tables and progress bars."""

import sys
from collections.abc import Iterable, Iterator


def table_of(metrics: dict) -> str:
    """Metrics as a terminal table."""
    rows = [("", "rows", "accuracy", "95 %", "NLL", "Brier", "ECE", "noise floor")]
    for name, group in [("all", metrics["overall"]), *metrics.get("groups", {}).items()]:
        accuracy, error = group["accuracy"], group["ece"]
        rows.append(
            (
                name,
                f"{group['rows']:,}",
                f"{accuracy['value']:.3f}",
                f"{accuracy['low']:.3f} – {accuracy['high']:.3f}",
                f"{group['nll']['value']:.3f}",
                f"{group['brier']['value']:.3f}",
                f"{error['value']:.3f}",
                f"{error['floor_mean']:.3f} (≤ {error['floor_95']:.3f})",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


def say(text: str) -> None:
    """A line on stderr, above a progress bar where there is one."""
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)


class Bar:
    """A progress bar on stderr with rows/s and the time left; a line every half minute where stderr is no terminal."""

    def __init__(self, total: int, done: int = 0, unit: str = "row"):
        from tqdm import tqdm

        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=unit,
            dynamic_ncols=terminal,
            smoothing=0.1,
            mininterval=0.2 if terminal else 30,
            delay=0 if terminal else 30,
        )

    def update(self, count: int) -> None:
        self._bar.update(count)

    def show(self, **values) -> None:
        self._bar.set_postfix(values, refresh=False)

    def close(self) -> None:
        self._bar.close()

    @classmethod
    def over(cls, items: Iterable, total: int, unit: str) -> Iterator:
        """The items, counted, where there are many."""
        if total < 1_000:
            yield from items
            return
        bar = cls(total, unit=unit)
        for item in items:
            bar.update(1)
            yield item
        bar.close()
