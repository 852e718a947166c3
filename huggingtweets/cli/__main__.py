"""`python -m huggingtweets.cli`, for environments whose commands are not on the path."""

import sys

from huggingtweets.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
