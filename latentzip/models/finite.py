"""No value that is not finite goes from one stage to the next in silence."""

import math

from torch import Tensor

from latentzip.errors import ModelError


def check_finite(values: Tensor, source: str) -> None:
    """Raise ModelError where one of the values, of any shape and float dtype, is infinite or no number.

    source: of which model they come, and of which part of it. Their sum tells, in a fraction of a convolution's time:
    nothing sensible adds up to more than float32 holds.
    """
    if not math.isfinite(values.float().sum().item()):
        raise ModelError(
            f"{source} gives values that are not finite: the model is damaged, or was trained badly: get it again, or"
            " take another with -m"
        )
