"""One job from posts to published model, and what is known of it at its end."""
