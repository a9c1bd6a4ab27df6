"""The one error that bad input raises; the command line prints its text and nothing else."""


class InputError(ValueError):
    """Input that cannot be used as it is: what was wrong, and what is accepted."""


def first_line(error: Exception) -> str:
    """What an error of another library says, short enough for one line of ours."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
