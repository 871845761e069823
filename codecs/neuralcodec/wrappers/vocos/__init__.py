"""Vocos (Siuzdak 2023, arXiv:2306.00814), by the package `vocos`."""
