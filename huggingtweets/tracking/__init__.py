"""Where metrics and artifacts are recorded."""
