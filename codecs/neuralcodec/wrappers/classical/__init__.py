"""Codecs that are not neural networks, as baselines: Opus, MP3, AAC, Codec 2 and PCM."""
