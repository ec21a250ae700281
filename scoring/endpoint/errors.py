"""Why there is no answer: to anything, or to one row."""

from scoring.errors import ScoringError


class EndpointError(ScoringError):
    """What keeps every row from being answered, such as a wrong token: nothing more is asked."""


class NoAnswerError(ScoringError):
    """Why one row has no answer, which becomes its status. overloaded: the server could not, or did not answer."""

    def __init__(self, message: str, overloaded: bool = False):
        super().__init__(message)
        self.overloaded = overloaded


class StoppedError(ScoringError):
    """The run is asked to stop while a request waits for its next try."""
