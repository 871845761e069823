"""Training of the tiny codec: data, losses, optimisers and the training loop."""
