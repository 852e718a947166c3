"""A model of our own families as one process trains it on a CPU: a row, and its gradient.

The forward and backward pass are those of the fused engine with a single slot (`models/run.py`), so
no class of transformers is imported. Checkpoints hold the parameters by transformers' names, and
another process may go on with transformers' modules.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.kernels.choose import choose_ops
from huggingtweets.kernels.rows import choose_row_ops
from huggingtweets.models.forward import micro_batch
from huggingtweets.models.layout import Layout
from huggingtweets.models.run import loss_and_gradients, target_scores
from huggingtweets.models.stack import build_stack
from huggingtweets.ops.dropout import Dropout, num_sites, site_keys, thresholds_and_scales
from huggingtweets.training.parallel.step import MicroBatch
from huggingtweets.training.progress import Training, Weights
from huggingtweets.upstream import fused_adamw


class RowModel(nn.Module):
    """Scores micro-batches, and adds their gradients to that of its only parameter, the row."""

    def __init__(
        self, layout: Layout, row: Tensor, recipe: RecipeConfig, dtype: torch.dtype
    ) -> None:
        """Hold a model (N,) on the CPU, whose products are computed in a precision."""
        super().__init__()
        self.layout = layout
        self.row = nn.Parameter(row, requires_grad=False)  # autograd sees activations alone
        shape = layout.shape
        self._stack = build_stack(layout, self.row.data.unsqueeze(0), dtype)
        self._grads = build_stack(layout, torch.zeros_like(self._stack.rows), torch.float32)
        self._isolate = recipe.isolate_documents
        self._rates = np.array(shape.dropouts_at(recipe.dropout))
        self._ops = choose_ops(row.device, shape.width, recipe.block_size)
        self._row_ops = choose_row_ops(row.device, num_positions=0, head_width=0)
        self._num_blocks = 0
        """Of the optimizer step, that gave a gradient so far."""

    def weights(self) -> Weights:
        """Return copies of the parameters, by transformers' names."""
        named = self.layout.named(self.row.data)
        return {n: v.clone(memory_format=torch.contiguous_format) for n, v in named.items()}

    def forward(
        self, input_ids: Tensor, targets: Tensor, position_ids: Tensor, *, with_hits: bool
    ) -> Any:
        """Do what `SummedLoss` does in evaluation mode: nothing is dropped, documents are apart."""
        self._stack.refresh()
        blocks = input_ids, targets, position_ids
        nats, hits = target_scores(self._stack, self._batch(blocks, isolate=True), self._row_ops)
        return (nats[0], hits[0]) if with_hits else nats.sum()

    def add_gradient(self, blocks: MicroBatch, scale: float, training: Training) -> Tensor:
        """Add the gradient of the scaled loss of a micro-batch of the next step; return the loss.

        Dropout is a function of seed, step and place of the block, as in the fused engine: however
        a step is cut, and whoever goes on with it, the same is dropped.
        """
        accumulate = self.row.grad is not None
        if not accumulate:
            self._num_blocks = 0
            self._stack.refresh()  # of what the last step left
        dropout = self._dropout(len(blocks[0]), training) if self._rates.any() else None
        loss = loss_and_gradients(
            self._stack,
            self._grads,
            self._batch(blocks, isolate=self._isolate, dropout=dropout),
            torch.full((1,), scale),
            accumulate=accumulate,
        )
        self._num_blocks += len(blocks[0])
        self.row.grad = self._grads.rows[0]
        return loss[0]

    def _batch(self, blocks: MicroBatch, *, isolate: bool, dropout: Dropout | None = None) -> Any:
        ids, targets, positions = (part.unsqueeze(0) for part in blocks)
        return micro_batch(
            self.layout.shape,
            (ids, targets, positions),
            isolate=isolate,
            reach=int(positions.max()) + 1,  # sync: on a CPU, which never waits
            use_fused=False,
            dropout=dropout,
            ops=self._ops,
            fused_gelu=True,
        )

    def _dropout(self, num: int, training: Training) -> Dropout:
        seeds, steps = (np.full(num, one) for one in (training.job.seed, training.step))
        places = np.arange(self._num_blocks, self._num_blocks + num)
        sites = num_sites(self.layout.shape.num_layers, self.layout.shape.num_heads)
        keys = site_keys(seeds, steps, places, sites)
        return Dropout(keys, *thresholds_and_scales(np.repeat(self._rates[:, None], num, axis=1)))


class RowAdamW:
    """What `build_optimizer` gives, for a row; building one of `torch.optim` imports a compiler."""

    def __init__(self, module: RowModel, recipe: RecipeConfig) -> None:
        """Begin with moments of zero."""
        row = module.row
        self.param_groups = [{"lr": recipe.lr}]
        self.grad_scale: Tensor | None = None
        """What the gradient is divided by; set before each step, as `found_inf`."""
        self.found_inf = torch.zeros(())
        """1: the step changes nothing."""
        state = {name: torch.zeros_like(row.data) for name in ("exp_avg", "exp_avg_sq")}
        self.state = {row: {"step": torch.zeros(()), **state}}
        self._row, self._recipe = row, recipe
        self._num_decayed = module.layout.num_decayed

    def step(self) -> None:
        """Take a step of AdamW; weight decay applies to the matrices only."""
        recipe, state, grad = self._recipe, self.state[self._row], self._row.grad
        assert grad is not None
        state["step"].add_(1 - self.found_inf)
        matrices, vectors = slice(self._num_decayed), slice(self._num_decayed, None)
        for part, weight_decay in ((matrices, recipe.weight_decay), (vectors, 0.0)):
            fused_adamw(
                [self._row.data[part]],
                [grad[part]],
                [state["exp_avg"][part]],
                [state["exp_avg_sq"][part]],
                [],
                [state["step"]],
                lr=self.param_groups[0]["lr"],
                beta1=recipe.beta1,
                beta2=recipe.beta2,
                weight_decay=weight_decay,
                eps=recipe.adam_eps,
                amsgrad=False,
                maximize=False,
                grad_scale=self.grad_scale,
                found_inf=self.found_inf,
            )

    def zero_grad(self) -> None:
        """Have the next gradient begin anew."""
        self._row.grad = None
