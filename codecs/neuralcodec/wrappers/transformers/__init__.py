"""Codec models of the package `transformers`: EnCodec, DAC, Mimi and X-Codec."""
