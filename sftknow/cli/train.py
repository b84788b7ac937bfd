"""`sftknow train`: base model + mastery table -> tuned checkpoint."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sftknow.cli.common import CONTEXT, FOLDER, examples
from sftknow.errors import ConfigError

if TYPE_CHECKING:
    from sftknow.tuning.train import TrainResult


@examples(
    "sftknow train meta-llama/Llama-2-7b-hf mastery/ --out tuned --bucket 0 -n 240 --device cuda",
    "sftknow train base/ mastery/ --out tuned --bucket mixed -n 60 --seed 3 --learning-rate 5e-4",
    "sftknow train base/ mastery/ --out tuned --bucket 3,4 -n all --set warmup_steps=10 --set loss_type=dft",
)
@click.command(context_settings=CONTEXT)
@click.argument("base")
@click.argument("table", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="The tuned checkpoint's folder; appears whole or not at all.")
@click.option("--bucket", required=True, help="Mastery bucket to train on: 0 to 4, several like 0,1, or mixed.")
@click.option("-n", "--n", "count", required=True, help="Number of facts, or all; the paper uses 60 to 1920.")
@click.option("--seed", default=0, help="Fixes the draw of facts and the order of training.")
@click.option("--learning-rate", default=1e-5, help="Peak learning rate of AdamW with a cosine schedule.")
@click.option("--batch-size", default=8, help="Facts per update, over all processes.")
@click.option("--micro-batch", type=int, help="Facts per process and forward pass; the rest is accumulated.")
@click.option("--epochs", default=1.0, help="Passes over the facts.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bf16", "bf16-mixed"]),
    help="Arithmetic of the training; by default that of the base. bf16 keeps weights and updates in bf16: an update "
    "smaller than half a unit in the last place is lost, so many parameters never change. float32 and bf16-mixed keep "
    "float32 master weights, so small updates add up, and round once, when the checkpoint is stored in the base's "
    "dtype. sft.json records the fraction of parameters that changed at all.",
)
@click.option("--device", default="cpu", help="Torch device, such as cpu or cuda.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="Any other field of TRL's SFTConfig.")
@click.option("--allow-fewer", is_flag=True, help="Take what there is where the bucket has fewer than N facts.")
@click.option("--lora", "use_lora", is_flag=True, help="Train a low-rank adapter (needs sftknow[lora]).")
@click.option("--lora-rank", default=16, help="Rank of the adapter.")
@click.option("--lora-alpha", type=float, help="Scale of the adapter, divided by its rank.  [default: twice the rank]")
@click.option("--lora-dropout", default=0.0, help="Dropout on the adapter's input.")
@click.option("--lora-target", multiple=True, help="Module to adapt, such as q_proj; by default every linear layer.")
@click.option("--merge", is_flag=True, help="With --lora: write the merged checkpoint, the adapter in its subfolder.")
@click.option(
    "--kl-weight",
    default=0.0,
    help="Weight of a penalty added to the loss: KL(tuned || base) over the whole vocabulary at the first token after "
    "prompts on well-mastered training facts. The base's logits are computed once and kept in memory.",
)
@click.option("--kl-facts", default=256, help="Facts of that penalty, at most.")
@click.option("--drift-every", type=int, help="Every so many updates, measure KL to the base and accuracy.")
@click.option("--drift-facts", default=32, help="Well-mastered training facts the drift is measured on.")
@click.option("--drift-stop", type=float, help="Stop above this KL, in nats, and keep the last weights within.")
@click.option("--save-steps", type=int, help="Keep a checkpoint every so many updates, to --resume from.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of this same run.")
@click.option("--overwrite", is_flag=True, help="Replace an existing OUT folder and forget a stopped run.")
def command(
    base: str,
    table: Path,
    out: Path,
    bucket: str,
    count: str,
    pairs: tuple[str, ...],
    use_lora: bool,
    lora_rank: int,
    lora_alpha: float | None,
    lora_dropout: float,
    lora_target: tuple[str, ...],
    merge: bool,
    **options: Any,
) -> None:
    """Fine-tune BASE on N facts of one mastery bucket of TABLE, by the paper's recipe, with TRL.

    Facts come from the in-domain train split, balanced over relations, and never share a subject or question with a
    test fact. The same seed draws nested sets: the 60 lie inside the 240.

    On several GPUs: accelerate launch --config_file configs/accelerate/fsdp2.yaml -m sftknow train ...
    """
    from sftknow.tuning.lora import Lora
    from sftknow.tuning.selection import parse_buckets
    from sftknow.tuning.settings import parse_settings
    from sftknow.tuning.train import train

    if merge and not use_lora:
        raise ConfigError("--merge merges a LoRA adapter; add --lora, or leave it out.")
    result = train(
        base,
        table,
        out,
        bucket=parse_buckets(bucket),
        n=_count(count),
        settings=parse_settings(pairs),
        lora=Lora(lora_rank, lora_alpha, lora_dropout, lora_target, merge) if use_lora else None,
        **options,
    )
    if os.environ.get("RANK", "0") == "0":
        _report(result, out)


def _report(result: "TrainResult", out: Path) -> None:
    per_relation = ", ".join(f"{relation} {number}" for relation, number in result.selection.per_relation.items())
    click.echo(f"tuned on {len(result.selection.facts)} facts ({per_relation})")
    for relation, lacking in result.selection.shortfalls.items():
        click.echo(f"note: {relation} had {lacking} facts too few; other relations gave them", err=True)
    losses = [loss for _, loss in result.losses]
    if losses:
        click.echo(f"loss {losses[0]:.3f} at the first update, {losses[-1]:.3f} at the last of {len(losses)}")
    drift = result.record.get("drift", {})
    for step, kl, accuracy in drift.get("measured", ()):
        click.echo(f"drift after update {step}: KL {kl:.4f} nats, {100 * accuracy:.1f}% still completed")
    if drift.get("stopped_at"):
        click.echo(f"stopped after update {drift['stopped_at']}; kept the weights of update {drift['best_step']}")
    if result.changes is not None:
        click.echo(f"{100 * result.changes.fraction:.1f}% of {result.changes.parameters:,} parameters changed at all")
    click.echo(f"wrote {out}")


def _count(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    if text.isdigit():
        return int(text)
    raise ConfigError(f"-n {text!r} is not a number of facts; give one, or `all`.")
