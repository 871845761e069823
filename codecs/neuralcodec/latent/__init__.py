"""Codecs made of parts: transforms, and any codec's latents under another quantizer or rate."""
