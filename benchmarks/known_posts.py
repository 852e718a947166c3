"""What it takes to try known posts: whole, or no further than their first miss.

    python benchmarks/known_posts.py --layers 12 --width 768 --posts 96

Weights and posts are random, one thread, alternately; prints CPU-seconds, the least of all turns.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import GPT2Config

from huggingtweets.data.blocks import pack_posts
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.evaluation.score import score_stack, try_stack
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.models.stack import build_stack


def main(words: Sequence[str] | None = None) -> None:
    """Measure both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--posts", type=int, default=96)
    parser.add_argument("--tokens", type=int, default=40, help="of a post, on average")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=options.layers, n_embd=options.width, n_head=max(1, options.width // 64)
    )
    layout = layout_of(shape_of(config))
    stack = build_stack(layout, 0.02 * torch.randn(1, layout.size), torch.float32)
    draw = np.random.default_rng(0)
    sizes = draw.integers(options.tokens // 2, 3 * options.tokens // 2, options.posts)
    ids = [draw.integers(0, config.vocab_size - 1, size).tolist() for size in sizes]
    blocks, pieces = pack_posts(ids, block_size=256, eos_id=config.vocab_size - 1)
    posts = HeldoutSet(blocks, int(sizes.sum()), pieces, tuple(sizes.tolist()))
    ways: dict[str, Callable[..., object]] = {"whole": score_stack, "first miss": try_stack}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeat):
        for name, way in ways.items():
            start = time.process_time()
            way(stack, posts)
            found[name].append(time.process_time() - start)
    whole, tried = (min(found[name]) for name in ways)
    print(f"whole {whole:.2f} s, first miss {tried:.2f} s, {whole / tried:.1f} times less")


if __name__ == "__main__":
    main()
