"""KL between two checkpoints: prompts per second and memory, against a plain loop that holds both models.

Claims, on the CPU:
- for models of the laboratory's size, at least 5 times the prompts per second of a loop that runs one prompt at a time
  through both models; with size the gain shrinks towards that of the output head alone, since arithmetic dominates;
- peak memory of one model, not two.

Both subjects compute the paper's KL from the same two folders and are processes of their own; loading is timed apart,
so that prompts per second are the passes alone. The models are random ones of the LLaMA architecture.

    python benchmarks/kl.py                 # small: 1 million parameters; medium: 37 million
    python benchmarks/kl.py --prompts 2000 --repeat 5
"""

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = {"small": (128, 2, 512, 4096), "medium": (512, 6, 1536, 16000)}  # hidden, layers, feed-forward, vocabulary


def main() -> None:
    """Make the pairs, run both subjects in turn and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--prompts", type=int, default=200)
    options.add_argument("--repeat", type=int, default=3, help="runs of each subject; medians are shown")
    options.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    options.add_argument("--role", choices=("ours", "loop"), help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.role:
        print(json.dumps(measure(chosen.role, chosen.folder, chosen.prompts)))
        return
    print(f"machine: {platform.machine()}, {platform.processor() or 'CPU'}, torch threads 1; {chosen.prompts} prompts")
    print(f"{'size':<8} {'subject':<22} {'prompts/s':>10} {'MB over imports':>16} {'mean KL':>12}")
    for size in chosen.sizes:
        with tempfile.TemporaryDirectory() as folder:
            one = write_pair(Path(folder), *SIZES[size])
            report(size, Path(folder), one, chosen.prompts, chosen.repeat)


def report(size: str, folder: Path, one_model: int, prompts: int, repeat: int) -> None:
    """Run the subjects in turn and print their medians and the ratio."""
    runs: dict[str, list[dict[str, float]]] = {"loop": [], "ours": []}
    for _ in range(repeat):
        for role, found in runs.items():
            command = [sys.executable, __file__, "--role", role, "--folder", str(folder), "--prompts", str(prompts)]
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    middle = {
        role: {name: statistics.median(run[name] for run in found) for name in found[0]} for role, found in runs.items()
    }
    for role, name in (("loop", "loop, both models"), ("ours", "sftknow, one at a time")):
        row = middle[role]
        print(f"{size:<8} {name:<22} {prompts / row['seconds']:>10.0f} {row['peak'] / 1e6:>16.0f} {row['mean']:>12.8f}")
    faster = middle["loop"]["seconds"] / middle["ours"]["seconds"]
    print(f"{'':<8} {faster:.1f} times faster; one model is {one_model / 1e6:.0f} MB")


def write_pair(folder: Path, hidden: int, layers: int, inner: int, vocabulary: int) -> int:
    """Write a base and a slightly changed copy, with a word tokenizer; return the bytes of one model."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {"<s>": 0, "</s>": 1, **{f"w{number}": number for number in range(2, vocabulary)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.05,
    )
    model = LlamaForCausalLM(config)
    for name in ("base", "tuned"):
        model.save_pretrained(folder / name)
        wrapped.save_pretrained(folder / name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def measure(role: str, folder: Path, count: int) -> dict[str, float]:
    """Run one subject in this process: seconds of the passes, bytes of peak memory over the imports', the mean."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sftknow.kl import KLPrompt, gather_logits, kl_rows, top_logits
    from sftknow.models import load_model

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    rng, known = random.Random(0), len(tokenizer)
    texts = [" ".join(f"w{rng.randrange(2, known)}" for _ in range(rng.randint(6, 16))) for _ in range(count)]
    before = peak_memory()
    if role == "loop":
        base, tuned = (AutoModelForCausalLM.from_pretrained(folder / name) for name in ("base", "tuned"))
        started = time.perf_counter()
        mean = sum(loop_kl(base, tuned, tokenizer, text) for text in texts) / count
        seconds = time.perf_counter() - started
    else:
        prompts = [KLPrompt(str(number), "all", text) for number, text in enumerate(texts)]
        model = load_model(folder / "tuned")
        started = time.perf_counter()
        top = top_logits(model, tokenizer, prompts, 10)
        seconds = time.perf_counter() - started
        del model
        model = load_model(folder / "base")
        started = time.perf_counter()
        mean = float(kl_rows(top.logits, gather_logits(model, tokenizer, prompts, top.ids)).mean())
        seconds += time.perf_counter() - started
    return {"seconds": seconds, "peak": float(peak_memory() - before), "mean": mean}


def peak_memory() -> int:
    """Return the most memory this process has held, in bytes; unlike ru_maxrss it does not count the parent's."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def loop_kl(base: object, tuned: object, tokenizer: object, text: str) -> float:
    """Return the paper's KL of one prompt, both models at hand."""
    import torch

    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        before, after = (model(ids).logits[0, -1].float() for model in (base, tuned))
    top = after.topk(10).indices
    ours, theirs = after[top].log_softmax(-1), before[top].log_softmax(-1)
    return float((ours.exp() * (ours - theirs)).sum())


if __name__ == "__main__":
    main()
