"""What watching drift costs: training time with and without DriftCallback at its default interval.

Claim: at most 10% of training time, measured inside the callback and over the whole of a run. The baseline is the same
SFTTrainer without it, on a random LLaMA of the laboratory's size (1 million parameters), batch 8; 32 facts are watched.

    python benchmarks/drift.py
    python benchmarks/drift.py --facts 960 --repeat 5
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))


def main() -> None:
    """Train both ways in turn and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--facts", type=int, default=480)
    options.add_argument("--repeat", type=int, default=3, help="runs each way; medians are shown")
    chosen = options.parse_args()

    import torch
    from toy_world import toy_facts, toy_table, write_toy_model

    from sftknow.kl import kl_prompts
    from sftknow.tuning.drift import DEFAULT_INTERVAL

    torch.set_num_threads(1)
    facts = toy_facts(max(80, chosen.facts // 2))
    training = [fact for fact in facts if fact.split == "train" and fact.domain == "in_domain"][: chosen.facts]
    prompts = kl_prompts(toy_table(facts))[:32]
    with tempfile.TemporaryDirectory() as name:
        base = write_toy_model(Path(name) / "base", facts, hidden=128, vocabulary=4096)
        train(base, training[:16], Path(name), None)
        rows = [
            (train(base, training, Path(name), None), train(base, training, Path(name), prompts))
            for _ in range(chosen.repeat)
        ]
    plain, watched = (statistics.median(row[place][0] for row in rows) for place in (0, 1))
    inside = statistics.median(row[1][1] / row[1][0] for row in rows)
    print(f"machine: {platform.machine()}, one torch thread; {len(training)} facts, batch 8, every {DEFAULT_INTERVAL}")
    print(f"without the callback  {plain:8.2f} s")
    print(f"with the callback     {watched:8.2f} s   {100 * (watched / plain - 1):+.1f}%")
    print(f"inside the callback   {100 * inside:8.1f}% of the run, the base's pass included")


def train(base: Path, facts: list, work: Path, prompts: object) -> tuple[float, float]:
    """Return the seconds of one training and those inside the callback."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from sftknow.models import load_model, load_tokenizer
    from sftknow.tuning.data import training_rows
    from sftknow.tuning.drift import DriftCallback

    tokenizer = load_tokenizer(base)
    drift = DriftCallback(prompts, tokenizer) if prompts else None
    config = SFTConfig(
        output_dir=str(work / "out"),
        use_cpu=True,
        bf16=False,
        report_to="none",
        per_device_train_batch_size=8,
        learning_rate=5e-4,
        num_train_epochs=1,
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    trainer = SFTTrainer(
        model=load_model(base),
        args=config,
        train_dataset=Dataset.from_list(training_rows(facts)),
        processing_class=tokenizer,
        callbacks=[drift] if drift else None,
    )
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    before = drift.seconds if drift else 0.0
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    return (seconds + before, drift.seconds) if drift else (seconds, 0.0)


if __name__ == "__main__":
    main()
