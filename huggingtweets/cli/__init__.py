"""The `huggingtweets` command: subcommands by what they are for; `main.py` lists them."""
