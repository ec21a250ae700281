"""One call of the command line: what it prints to, what stops it, and the processes that take part in it."""

import os
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

from scoring.terminal.progress import Console

if TYPE_CHECKING:
    from scoring.run.options import RunContext
    from scoring.run.processes import Processes


@dataclass
class Session:
    """Made once by the main command, and passed on to what it calls.

    debug: show the traceback of an error. stop: set by Ctrl-C inside `stoppable`. processes: those of the call, once
    this one has joined them.
    """

    debug: bool = False
    console: Console = field(default_factory=Console)
    stop: Event = field(default_factory=Event)
    processes: "Processes | None" = None

    @property
    def first(self) -> bool:
        """Whether this process prints: it is alone, or the first of its call."""
        return self.processes is None or self.processes.first

    def join(self) -> None:
        """Join the other processes of the call, where several were started. All but the first are quiet then."""
        if int(os.environ.get("WORLD_SIZE") or 1) > 1:
            from scoring.run.processes import join

            self.processes = join(self.stop)
            self.console.quiet = not self.first

    def context(self) -> "RunContext":
        """What a run of this call talks to."""
        from scoring.run.options import RunContext
        from scoring.run.processes import Processes

        return RunContext(self.console.progress, self.console.say, self.stop, self.processes or Processes())
