"""The `huggingtweets` command: one module per subcommand, which `main.py` lists."""
