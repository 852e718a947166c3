"""transformers' modules made fit for training: attention, dropout, loss, optimizer."""
