"""The CPU backend of the codebook lookup: numba, with explicit vector instructions per tile."""
