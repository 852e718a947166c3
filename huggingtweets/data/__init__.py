"""From clean posts to blocks of token ids."""
