"""The commands of the command line, one module per group; `neuralcodec.__main__` adds them."""
