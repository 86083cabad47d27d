"""What the command line can fail with, and the exit codes that scripts may rely on."""

from typing import ClassVar, Final

from shared.errors import DrayError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_NOT_RUN = 125
"""`dray run` could not start the command: its own codes are left to the command."""
EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 141
"""As of a program that SIGPIPE ends."""

EXIT_CODES: Final = """Exit codes: 0 done; 1 the pull failed, the image is not there or the gateway
refused; 2 wrong usage; 3 no gateway or agent answers; 130 interrupted; 141 nobody reads the
output."""


class CliError(DrayError):
    """The command could not do what it was asked for."""

    code = "failed"
    exit_code: ClassVar[int] = EXIT_FAILED


class RefusedError(CliError):
    """The gateway or the agent answered with a problem."""

    def __init__(
        self, message: str, *, status: int, code: str, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.answered = status
        self.problem = code
        self.retry_after = retry_after
        """In how many seconds the same request may succeed, where the answer said so."""


class UnreachableError(CliError):
    """Nobody answers at the gateway's or the agent's address."""

    code = "unreachable"
    exit_code = EXIT_UNREACHABLE


class UnexpectedAnswerError(CliError):
    """Something answers, but not as a gateway or an agent of ours does."""

    code = "unexpected_answer"
    exit_code = EXIT_UNREACHABLE


class UsageError(CliError):
    """The command line, or the environment behind it, makes no sense."""

    code = "usage"
    exit_code = EXIT_USAGE
