"""Codecs, one module a family. Import them by name through `neuralcodec.load`."""
