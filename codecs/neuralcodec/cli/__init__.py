"""The commands of the command line, a module a group; `neuralcodec.__main__` lists them."""
