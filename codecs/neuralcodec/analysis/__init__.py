"""From the rows of a sweep to statistics and figures."""
