"""Statistics and figures of a sweep, computed from its rows alone."""
