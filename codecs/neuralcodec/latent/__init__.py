"""Transforms as latent codecs, and latent codecs with another quantizer or another frame rate."""
