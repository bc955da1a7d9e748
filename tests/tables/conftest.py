"""As in the tests of the statistics: an expected degenerate sample raises no warning."""

from tests.statistics.conftest import no_warnings

__all__ = ["no_warnings"]
