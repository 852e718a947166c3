"""The single engine: one model over all processes of the launch."""

from accelerate import Accelerator
from transformers import PreTrainedModel

from huggingtweets.config.plan import Plan
from huggingtweets.data.blocks import TrainingSet
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.errors import DataError
from huggingtweets.training.launch import split_batch
from huggingtweets.training.loop import Report, Speed, fit
from huggingtweets.training.loss import SummedLoss, check_isolation
from huggingtweets.training.meter import flops_per_token, peak_flops
from huggingtweets.training.model import Base, load_model
from huggingtweets.training.optimizer import build_optimizer
from huggingtweets.training.records import TrainResult


def train_single(
    accelerator: Accelerator,
    base: Base,
    training_set: TrainingSet,
    heldout: HeldoutSet | None,
    plan: Plan,
    report: Report,
) -> tuple[TrainResult, PreTrainedModel]:
    """Fine-tune the base on one job; every rank calls it.

    Returns:
        The figures, and the trained model on the CPU, its weights valid on the main process.

    Raises:
        DataError: the architecture lets packed documents see each other.
        TrainingError: training diverged.
        LaunchError: the batch cannot be divided over the processes.
    """
    batch = split_batch(
        global_batch_size=plan.recipe.global_batch_size,
        block_size=plan.recipe.block_size,
        micro_batch_size=plan.engine.micro_batch_size,
        world_size=accelerator.num_processes,
    )
    model = load_model(base, plan.recipe)
    if (plan.recipe.isolate_documents or heldout) and not check_isolation(model, base.eos_id):
        raise DataError(
            f"model.path: {base.name} ({model.config.model_type}) does not keep packed posts "
            "apart; expected an architecture that honours a block-diagonal attention mask; set "
            "recipe.isolate_documents=false and recipe.heldout_frac=0"
        )
    if plan.engine.activation_checkpointing:
        model.gradient_checkpointing_enable()
    mean_context = float(training_set.blocks.position_ids.mean()) + 1
    speed = Speed(
        flops_per_token(model, mean_context),
        peak_flops(accelerator.device, plan.engine.peak_tflops),
    )
    module = SummedLoss(model, isolate=plan.recipe.isolate_documents)
    if plan.engine.compile:
        module.compile()
    optimizer = build_optimizer(module, plan.recipe)
    module, optimizer = accelerator.prepare(module, optimizer)
    result, weights = fit(
        accelerator,
        module,
        optimizer,
        training_set,
        heldout,
        recipe=plan.recipe,
        batch=batch,
        seed=plan.seed,
        log_every=plan.engine.log_every,
        speed=speed,
        report=report,
    )
    accelerator.free_memory()
    trained = load_model(base, plan.recipe) if accelerator.is_main_process else model
    if accelerator.is_main_process:
        trained.load_state_dict(weights)
    return result, trained.eval()
