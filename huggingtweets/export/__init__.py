"""Finished models as files for other programs: GGUF, folders of adapters, tables, the Hub."""
