"""One tree of errors. The command line prints the message and exits with 1; nothing below it prints or exits."""


class LatentzipError(Exception):
    """Anything that went wrong for a reason the user can act on: lower case, path first, cause, remedy.

    Where several things are wrong at once, each is an argument.
    """


class ImageError(LatentzipError):
    """A picture that cannot be read, or cannot be kept faithfully."""


class UsageError(LatentzipError):
    """Wishes that contradict each other, or that nothing can meet, whatever the file."""


class FormatError(LatentzipError):
    """Bytes that are not a valid .lz file."""


class TruncatedError(FormatError):
    """A .lz file that ends before its header says it should."""


class ModelError(LatentzipError):
    """Weights that are missing, damaged, or not the ones a file needs."""


class OutputError(LatentzipError):
    """A result that cannot be written where it should go."""


class BenchError(LatentzipError):
    """A comparison that cannot be made as it was asked for."""


class TrainingError(LatentzipError):
    """A training run that cannot start or cannot go on."""
