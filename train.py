"""Train one language model per person: `accelerate launch train.py user=karpathy`."""

from huggingtweets import train

if __name__ == "__main__":
    raise SystemExit(train.main())
