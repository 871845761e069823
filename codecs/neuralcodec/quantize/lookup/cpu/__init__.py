"""The CPU backend of the codebook lookup: numba, with a tile of explicit vector code."""
