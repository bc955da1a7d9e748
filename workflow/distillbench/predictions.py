"""Row scores (replaced by the branch `predictions`)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class RowScores(NamedTuple):
    """Ids of the test rows [N] and the score of each."""

    rows: NDArray[np.int64]
    values: NDArray[np.float32]


RunKey = tuple[str, str, str, str, int]
Rows = Mapping[RunKey, RowScores]
