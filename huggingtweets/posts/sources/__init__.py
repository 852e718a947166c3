"""Where posts come from: one module per source."""
