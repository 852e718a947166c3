"""Base models: found, fetched, unpacked, loaded, and adapted by LoRA."""
