"""The options of a Ray cluster that answers in place of this process."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from scoring.terminal.options import as_record, together
from scoring.terminal.session import Session

if TYPE_CHECKING:
    from scoring.run.options import RunContext


@dataclass(frozen=True)
class RayChoices:
    """ray: the address of a cluster, "" for the one that runs here or is started here, None for no cluster."""

    ray: str | None
    ray_actors: int | None

    def check(self, session: Session, device_map: str = "none") -> None:
        """Raises UsageError for options that do not go together."""
        if self.ray is None and self.ray_actors is not None:
            raise click.UsageError("--ray-actors: for --ray; add that, or leave it out")
        if self.ray is not None and session.processes:
            raise click.UsageError("--ray finds its processes by itself; start it without torchrun")
        if self.ray is not None and device_map == "auto":
            raise click.UsageError("--ray has a model on each card, --device-map auto one on all; give one of the two")

    def check_training(self, session: Session, folds: int | None) -> None:
        """The same for a training. Raises UsageError also where it is in no folds."""
        self.check(session)
        if self.ray is not None and not folds:
            raise click.UsageError(
                "--ray trains the folds of --folds, each in a process of its own; one adapter over several cards stays "
                "with torchrun"
            )

    @contextmanager
    def connected(self, session: Session) -> Iterator[None]:
        """Inside, the cluster is connected, where one is asked for. Raises ClusterError, CallError.

        What Ray prints on stdout, such as which node is lost, goes to stderr: stdout has results alone.
        """
        if self.ray is None:
            yield
            return
        from scoring.cluster.connection import connected

        with redirect_stdout(sys.stderr), connected(self.ray or None, session.console.say):
            yield

    @contextmanager
    def context(self, session: Session) -> Iterator["RunContext"]:
        """What a run talks to; inside, its actors live. Raises ClusterError, CallError."""
        context = session.context()
        if self.ray is None:
            yield context
            return
        from scoring.cluster.workers import RayWorkers

        with self.connected(session):
            workers = RayWorkers(self.ray_actors, session.console.say, session.stop)
            try:
                workers.start()
                yield replace(context, workers=workers)
            finally:
                workers.close()


ray_options = together(
    click.option(
        "--ray",
        is_flag=False,
        flag_value="",
        metavar="[ADDRESS]",
        help="Use a Ray cluster, an actor on each card: at this address, else the running one, else one that is "
        "started here.",
    ),
    click.option(
        "--ray-actors",
        type=click.IntRange(1),
        help="With --ray: how many actors.  [default: one for each card, or for each node without cards]",
    ),
    as_record(RayChoices, "cluster"),
)
