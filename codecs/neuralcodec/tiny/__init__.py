"""Our own small codec: model, training, and the checkpoints that come along."""
