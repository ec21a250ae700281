"""Mutation testing: would the tests notice if a line of the statistics were wrong?

    make mutation                                         all that setup.cfg lists under [mutmut]; a run that was
                                                          stopped continues, and changed functions are run again
    make mutation MUTANTS="scoring.stats.comparison.*"    one module, from the beginning
    make mutation MUTANTS="$(python -m benchmarks.mutation --names scoring.stats.comparison)"
                                                          only its survivors, after you wrote tests
    make mutation MUTANTS="$(python -m benchmarks.mutation --sample 1000)"
                                                          a random sample of those that are unchecked: all take hours
    python -m benchmarks.mutation scoring.stats.comparison
                                                          its counts and survivors in the last run

mutmut changes one operator, constant, argument or text of a function at a time and runs the tests that call this
function. A mutant is killed when a test fails, and survives when none does. Everything is written to mutants/; delete
that folder after existing tests have been changed, so that the tests of each function are recorded anew.

For mutmut, this module is also a pytest plugin (`-p benchmarks.mutation`) that makes the verdict on a mutant quick and
repeatable: no tests that start processes or are marked as `simulation`, the quickest tests of the mutant's module first
and then the quickest others for a few seconds, the same Hypothesis examples in every run.
"""

import gc
import json
import os
import random
from collections import Counter
from pathlib import Path

import click
import pytest
from hypothesis import Phase, settings

MUTANTS = Path("mutants")
STATISTICS = Path("mutmut-stats.json")  # in mutants/, where the tests run
PROCESSES = {"cli", "subprocess"}  # fixtures and modules of tests that start processes, which takes seconds
OWN_SECONDS = 8  # how long the tests of its own module may take for one mutant
OTHER_SECONDS = 3  # and those of other modules
VERDICTS = {0: "survived", 1: "killed", 3: "killed", 5: "untested", 33: "untested"}  # by the exit status of pytest
VERDICTS |= {None: "unchecked", 2: "unchecked"}  # 2: interrupted from the keyboard


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis draws the same examples for every mutant, and does not look for the smallest that fails.

    Garbage collection leaves out what was imported before the fork: searching it took half of a mutant's time.
    """
    gc.freeze()
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutation", derandomize=True, database=None, deadline=None, phases=phases)
    settings.load_profile("mutation")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out simulations and tests that start processes; sort the others by the time they take without mutants.

    For a mutant, the quickest tests of its module that take OWN_SECONDS together come first, then as many of the others
    as take OTHER_SECONDS: all tests of a function that most tests call would take minutes. A mutant that only the rest
    would kill counts as survived.
    """
    slow = [
        item
        for item in items
        if item.get_closest_marker("simulation") or PROCESSES & {*item.fixturenames, *item.function.__code__.co_names}
    ]
    seconds = json.loads(STATISTICS.read_text())["duration_by_test"] if STATISTICS.exists() else {}
    module, _, mutant = os.environ.get("MUTANT_UNDER_TEST", "").rpartition(".")
    mirror = f"test_{module.rpartition('.')[2]}.py"
    chosen = sorted(
        (item for item in items if item not in slow),
        key=lambda item: (item.path.name != mirror, seconds.get(item.nodeid, 0)),
    )
    if "__mutmut_" in mutant:
        left = {True: OWN_SECONDS, False: OTHER_SECONDS}
        for item in chosen:
            left[item.path.name == mirror] -= seconds.get(item.nodeid, 0)
            if left[item.path.name == mirror] < 0:
                slow.append(item)
        chosen = [item for item in chosen if item not in slow]
    config.hook.pytest_deselected(items=slow)
    items[:] = chosen


def read_verdicts(folder: Path = MUTANTS) -> dict[str, str]:
    """The verdict on each mutant, by its name: killed, survived, untested, unchecked, or timeout.

    A mutant that a signal or mutmut stopped is a timeout, which counts as killed.
    """
    verdicts = {}
    for path in sorted(folder.rglob("*.meta")):
        for name, status in json.loads(path.read_text())["exit_code_by_key"].items():
            verdicts[name] = VERDICTS.get(status, "timeout")
    return verdicts


def module_of(mutant: str) -> str:
    """`scoring.stats.comparison.x_verdict__mutmut_9` is in `scoring.stats.comparison`."""
    return mutant.rpartition(".")[0]


def change_of(mutant: str) -> str:
    """The lines that a mutant changes, without the lines around them."""
    from mutmut.mutation.diff_apply import find_mutant, get_diff_for_mutant

    lines = get_diff_for_mutant(mutant, path=find_mutant(mutant).path).splitlines()
    return "\n".join(line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))


@click.command()
@click.argument("modules", nargs=-1)
@click.option("--names", is_flag=True, help="Only the names of the survivors, in one line.")
@click.option("--sample", type=int, help="Only so many names of mutants that are unchecked, drawn at random.")
@click.option("--seed", default=0, show_default=True, help="Of that draw.")
def main(modules: tuple[str, ...], names: bool, sample: int | None, seed: int) -> None:
    """Print the counts of the last run, by module, and what each survivor changes."""
    verdicts = {name: verdict for name, verdict in read_verdicts().items() if not modules or module_of(name) in modules}
    if sample:
        unchecked = sorted(name for name, verdict in verdicts.items() if verdict == "unchecked")
        click.echo(" ".join(random.Random(seed).sample(unchecked, min(sample, len(unchecked)))))
        return
    survivors = [name for name, verdict in verdicts.items() if verdict in ("survived", "untested")]
    if names:
        click.echo(" ".join(survivors))
        return
    counts = Counter((module_of(name), verdict) for name, verdict in verdicts.items())
    counts.update(("all", verdict) for verdict in verdicts.values())
    click.echo(f"{'module':32}{'mutants':>9}{'killed':>9}{'timeout':>9}{'survived':>10}{'untested':>10}{'share':>8}")
    for module in [*sorted({module_of(name) for name in verdicts}), "all"]:
        killed, timeout, survived, untested = (
            counts[module, verdict] for verdict in ("killed", "timeout", "survived", "untested")
        )
        checked = killed + timeout + survived + untested
        share = f"{(killed + timeout) / checked:.1%}" if checked else "–"
        total = checked + counts[module, "unchecked"]
        click.echo(f"{module:32}{total:9}{killed:9}{timeout:9}{survived:10}{untested:10}{share:>8}")
    for name in survivors:
        click.echo(f"\n{name} {verdicts[name]}\n{change_of(name)}")


if __name__ == "__main__":
    main()
