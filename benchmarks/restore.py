"""Restoration against a plain copy and against the dense way, on synthetic bfloat16 pairs.

Claims, on two cores with the files in the page cache, for 1.1 billion parameters:
- one fraction within 3 times a copy of the tuned folder that is flushed to the disk, as the tool's own output is;
  seven within 1.5 times seven such copies plus two more;
- at least 15 times faster than the dense way for one fraction, 50 times for seven;
- at most 1 GB of private memory, and within 10% the same for 1b and 8b.

The dense way is written after the description of the method's public program: it loads both models whole, holds one
flat tensor of all r, calls torch.topk and writes one checkpoint; every further fraction repeats all of it, so that
seven fractions are reported as seven times one. Each subject is a process of its own, timed from start to exit.

    python benchmarks/restore.py --size 0.2b
    python benchmarks/restore.py --size 1b --repeat 5
    python benchmarks/restore.py --size 8b --no-dense
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SEVEN = ("1", "3", "5", "10", "20", "40", "60")
SIZES = {  # hidden, layers, feed-forward, key-value width, vocabulary, shards
    "tiny": (128, 2, 256, 64, 1000, 1),
    "0.2b": (1024, 12, 2816, 256, 32000, 1),
    "1b": (2048, 22, 5632, 256, 32000, 1),
    "8b": (4096, 32, 14336, 1024, 128256, 4),
}
POOL = 1 << 24
RESTORE = [sys.executable, "-c", "from sftknow.cli.restore import main; main()"]
COPY = ["cp", "-r"]
SYNCED = ["sh", "-c", 'cp -r "$0" "$1" && sync "$1"/*']
COPIES = ["sh", "-c", 'mkdir "$1" && for n in 1 2 3 4 5 6 7; do cp -r "$0" "$1/$n"; done']
SYNCED_COPIES = ["sh", "-c", COPIES[2] + ' && sync "$1"/*/*']
DENSE = [sys.executable, __file__, "--role", "dense"]


@dataclass(frozen=True)
class Run:
    """What one process took: seconds of wall clock and of CPU, and bytes at the peak.

    Private memory is what no file backs; resident memory also counts the pages of mapped files, which the system takes
    back when it needs them.
    """

    wall: float
    cpu: float
    private: int
    resident: int


def main() -> None:
    """Make a pair, run every subject and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", choices=SIZES, default="0.2b")
    options.add_argument("--repeat", type=int, default=3, help="runs of each subject; medians are shown")
    options.add_argument(
        "--no-dense", action="store_true", help="leave the dense baseline out (it needs 20 bytes a parameter)"
    )
    options.add_argument("--no-seven", action="store_true", help="one fraction only, where the disk is small")
    options.add_argument("--folder", type=Path, help="where to work; kept between runs when given")
    options.add_argument("--role", choices=("dense",), help=argparse.SUPPRESS)
    options.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.role:
        dense(*chosen.paths)
        return
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="restore-benchmark-"))
    try:
        compare(folder, chosen)
    finally:
        if chosen.folder is None:
            shutil.rmtree(folder)


def compare(folder: Path, chosen: argparse.Namespace) -> None:
    """Run every subject on one pair and print medians and ratios."""
    base, tuned = (folder / f"{name}-{chosen.size}" for name in ("base", "tuned"))
    parameters = make_pair(base, tuned, SIZES[chosen.size])
    cores = len(os.sched_getaffinity(0))
    print(f"{parameters / 1e9:.2f} billion parameters, bfloat16; {cores} cores, {platform.machine()}")
    subjects = {
        "copy": [*COPY, tuned],
        "copy, synced": [*SYNCED, tuned],
        "sftknow-restore, one fraction": [*RESTORE, base, tuned, "--top", "20", "--out"],
    }
    if not chosen.no_seven:
        tops = [word for percent in SEVEN for word in ("--top", percent)]
        subjects["seven copies"] = [*COPIES, tuned]
        subjects["seven copies, synced"] = [*SYNCED_COPIES, tuned]
        subjects["sftknow-restore, seven fractions"] = [*RESTORE, base, tuned, *tops, "--out"]
    if not chosen.no_dense:
        subjects["dense, one fraction"] = [*DENSE, base, tuned]
    runs: dict[str, list[Run]] = {name: [] for name in subjects}
    for number in range(chosen.repeat + 1):
        for name, command in subjects.items():
            if number and name.startswith("dense") and number > 1:
                continue
            copies = len(SEVEN) if "seven" in name else 1
            run = measure([*map(str, command), str(folder / "out")], (base, tuned), copies * 2 * parameters)
            shutil.rmtree(folder / "out")
            if number or name.startswith("dense"):  # the first round warms caches and compiles the kernels
                runs[name].append(run)
    report({name: middle(found) for name, found in runs.items()})


def report(found: dict[str, Run]) -> None:
    """Print one row for each subject and the ratios that are claimed."""
    print(f"\n{'':34}{'wall s':>9}{'CPU s':>9}{'private MB':>12}{'resident MB':>13}")
    for name, run in found.items():
        print(f"{name:34}{run.wall:9.2f}{run.cpu:9.2f}{run.private / 1e6:12.0f}{run.resident / 1e6:13.0f}")
    plain, synced = found["copy"].wall, found["copy, synced"].wall
    one = found["sftknow-restore, one fraction"].wall
    print(f"\none fraction / synced copy: {one / synced:.2f}; claimed at most 3 (plain copy: {one / plain:.2f})")
    seven = found.get("sftknow-restore, seven fractions")
    if seven is not None:
        plain_bound = 1.5 * found["seven copies"].wall + 2 * plain
        synced_bound = 1.5 * found["seven copies, synced"].wall + 2 * synced
        print(
            f"seven fractions / (1.5 x seven synced copies + two): {seven.wall / synced_bound:.2f}; "
            f"claimed at most 1 (plain copies: {seven.wall / plain_bound:.2f})"
        )
    slow = found.get("dense, one fraction")
    if slow is not None:
        print(f"dense / one fraction: {slow.wall / one:.1f}; claimed at least 15")
        if seven is not None:
            print(f"seven times dense / seven fractions: {7 * slow.wall / seven.wall:.1f}; claimed at least 50")


def middle(runs: list[Run]) -> Run:
    """Return the median of each figure."""
    return Run(
        statistics.median(run.wall for run in runs),
        statistics.median(run.cpu for run in runs),
        int(statistics.median(run.private for run in runs)),
        int(statistics.median(run.resident for run in runs)),
    )


def measure(command: list[str], inputs: tuple[Path, ...], writes: int) -> Run:
    """Run a command with its input files in the page cache, nothing left to flush, and room for what it writes."""
    os.sync()
    touch_free_memory(writes)
    for folder in inputs:
        for file in folder.glob("*.safetensors"):
            with file.open("rb", buffering=0) as stream:
                while stream.read(1 << 24):
                    pass
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    private = resident = 0
    while process.poll() is None:
        now = resident_bytes(process.pid)
        private, resident = max(private, now[0]), max(resident, now[1])
        time.sleep(0.01)
    wall = time.perf_counter() - start
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall, cpu, private, resident)


def touch_free_memory(size: int) -> None:
    """Use and free as much memory as a run will write, since a virtual machine is slow to get it from its host."""
    page, free = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_AVPHYS_PAGES")
    np.ones(max(0, min(size * 5 // 4, free * page * 9 // 10)), np.uint8)


def resident_bytes(process: int) -> tuple[int, int]:
    """Return the private and the whole resident memory of a process at this moment."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("Rss")}
    private = sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
    return private, private + sizes.get("RssFile", 0)


def dense(base: Path, tuned: Path, out: Path) -> None:
    """Restore the top 20 percent the dense way: whole models, one flat tensor of r, torch.topk."""
    import torch
    from safetensors.torch import load_file, save_file

    before, after = (
        {k: v for f in sorted(m.glob("*.safetensors")) for k, v in load_file(f).items()} for m in (base, tuned)
    )
    names = [name for name in after if "layers" in name and "norm" not in name]
    r = torch.cat([((after[n] - before[n]).abs() / (before[n].abs() + 1e-8)).flatten() for n in names])
    chosen = torch.zeros(r.numel(), dtype=torch.bool)
    chosen[torch.topk(r, int(r.numel() * 20 / 100)).indices] = True
    start = 0
    for name in names:
        size = after[name].numel()
        mask = chosen[start : start + size].view(after[name].shape)
        after[name] = torch.where(mask, before[name], after[name])
        start += size
    out.mkdir()
    save_file(after, out / "model.safetensors", metadata={"format": "pt"})
    for file in tuned.glob("*.json"):
        if "index" not in file.name:
            shutil.copyfile(file, out / file.name)


def make_pair(base: Path, tuned: Path, size: tuple[int, ...]) -> int:
    """Write a pair of checkpoints whose changes look like a fine-tuning in bfloat16; return the parameter count."""
    hidden, layers, forward, narrow, vocabulary, shards = size
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name, shape in (
            ("self_attn.q_proj", (hidden, hidden)), ("self_attn.k_proj", (narrow, hidden)),
            ("self_attn.v_proj", (narrow, hidden)), ("self_attn.o_proj", (hidden, hidden)),
            ("mlp.gate_proj", (forward, hidden)), ("mlp.up_proj", (forward, hidden)),
            ("mlp.down_proj", (hidden, forward)), ("input_layernorm", (hidden,)),
            ("post_attention_layernorm", (hidden,)),
        ):  # fmt: skip
            shapes[f"{at}.{name}.weight"] = shape
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
    if not (base.is_dir() and tuned.is_dir()):
        write_pair(base, tuned, shapes, shards)
    return sum(int(np.prod(shape)) for shape in shapes.values())


def write_pair(base: Path, tuned: Path, shapes: dict[str, tuple[int, ...]], shards: int) -> None:
    """Write both checkpoints from one pool of weights and updates, at random offsets into it."""
    generator = np.random.default_rng(0)
    weights = generator.standard_normal(POOL, np.float32) * np.float32(0.02)
    before = to_bfloat16(weights)
    started = (before.astype(np.uint32) << 16).view(np.float32)
    after = to_bfloat16(started + generator.standard_normal(POOL, np.float32) * np.float32(5e-5))
    names = list(shapes)
    groups = [names[len(names) * n // shards : len(names) * (n + 1) // shards] for n in range(shards)]
    files = (
        ["model.safetensors"]
        if shards == 1
        else [f"model-{n + 1:05}-of-{shards:05}.safetensors" for n in range(shards)]
    )
    for folder, pool in ((base, before), (tuned, after)):
        offsets = np.random.default_rng(1)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": False}))
        for file, group in zip(files, groups, strict=True):
            write_shard(folder / file, {name: shapes[name] for name in group}, pool, offsets)
        if shards > 1:
            placed = {name: file for file, group in zip(files, groups, strict=True) for name in group}
            index = {"metadata": {}, "weight_map": placed}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_shard(path: Path, shapes: dict[str, tuple[int, ...]], pool: np.ndarray, offsets: np.random.Generator) -> None:
    """Write one safetensors file of bfloat16 tensors cut from a pool."""
    header, at = {}, 0
    for name, shape in shapes.items():
        length = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + length]}
        at += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            left = int(np.prod(shape))
            while left:
                start = int(offsets.integers(0, POOL - 1))
                piece = pool[start : start + left]
                file.write(piece.data)
                left -= piece.size


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Return float32 values rounded to bfloat16, as 16-bit words."""
    words = values.view(np.uint32)
    return ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16)


if __name__ == "__main__":
    main()
