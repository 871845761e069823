"""The tiny codec: a small neural codec with its model, training and shipped checkpoints."""
