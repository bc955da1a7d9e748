"""Seeds: one number per (seed, scope), so that what must be paired is paired and nothing else is.

Seed s fixes the split, the teacher, the student's initial weights and the batch order for every method and both
libraries: those scopes name no method and no library.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *scope: str) -> int:
    """A 63-bit seed for one scope of a run, e.g. ``derive(3, "split")``; scopes are independent of one another."""
    text = "/".join([str(seed), *scope])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *scope: str) -> torch.Generator:
    """A CPU generator seeded by ``derive``."""
    return torch.Generator().manual_seed(derive(seed, *scope))


@contextmanager
def shared_generators(seed: int) -> Iterator[None]:
    """Seed the generators that everybody shares (torch's, NumPy's, Python's) for a while; then they are as before."""
    kept = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
