"""What is done about a person beside training: look at posts, keep them, forget them."""
