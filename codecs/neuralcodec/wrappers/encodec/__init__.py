"""EnCodec (Defossez et al. 2022, arXiv:2210.13438), by the package `encodec`."""
