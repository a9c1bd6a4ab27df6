"""The one error that bad input raises; the command line prints its text and nothing else."""


class InputError(ValueError):
    """Input that cannot be used as it is: what was wrong, and what is accepted."""
