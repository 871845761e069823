"""Training of the tiny codec: data, losses, optimisers, checkpoints."""
