"""The demo from facts to report: each step is kept on disk, and a run that was stopped goes on where it was."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sftknow.demo.settings import DemoSettings
from sftknow.demo.unit import Unit, run_unit
from sftknow.demo.workers import run_side_by_side
from sftknow.errors import ConfigError, DataError
from sftknow.facts.fact import DOMAINS, SPLITS
from sftknow.lab.build import Lab, build_lab
from sftknow.mastery.table import RECORD_FILE, MasteryTable, read_mastery
from sftknow.progress import counter
from sftknow.records import file_digest, model_identity, read_record, write_record
from sftknow.report.findings import findings
from sftknow.report.page import write_report
from sftknow.report.results import read_results
from sftknow.report.tables import histogram_table, runs_table, sweep_table

RECORD = "demo.json"


@dataclass
class Demo:
    """A demo under way: what to do, where, and how.

    Attributes:
        settings: fixed before any result is seen.
        folder: everything the demo leaves behind goes here.
        device: a torch device.
        workers: processes that probe and fine-tune side by side.
        log: where lines and tables go.
        body: the demo record as far as it is known.
    """

    settings: DemoSettings
    folder: Path
    device: str = "cpu"
    workers: int = 1
    log: Callable[[str], None] = print
    body: dict[str, Any] = field(default_factory=lambda: {"runs": [], "concentration": [], "sweeps": [], "seconds": {}})

    def write(self) -> None:
        """Write the record as it stands, so that a report can be made half-way."""
        made_from = self.body.get("made_from", {})
        body = {name: value for name, value in self.body.items() if name != "made_from"}
        seeds = {"lab": self.settings.lab_seed, "sampling": self.settings.sampling_seed}
        write_record(self.folder / RECORD, "demo", body, made_from=made_from, seeds=seeds)

    @contextmanager
    def step(self, name: str, line: str) -> Iterator[None]:
        """Say what begins, and add up the time it takes over all runs of this demo."""
        self.log(f"\n== {line}")
        seconds, start = self.body["seconds"], time.monotonic()
        yield
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - start, 1)


def run_demo(demo: Demo) -> Path:
    """Carry out the demo, or what is left of it, and return the path of its report page.

    Raises:
        ConfigError: the folder holds something else, or cannot be written.
        DataError: facts that cannot be read, or a laboratory without enough facts.
    """
    _claim(demo)
    with demo.step("lab", "The laboratory: a small world of facts and a model pretrained on it"):
        lab = build_lab(
            size=demo.settings.size,
            facts=demo.settings.facts,
            seed=demo.settings.lab_seed,
            device=demo.device,
            log=demo.log,
        )
    with demo.step("probe", "Mastery: 21 completion templates x 10 samples for every fact"):
        table = _mastery(demo, lab)
    units = plan_units(demo, lab.folder, table)
    with demo.step("runs", f"Fine-tuning: {_plan_line(demo.settings, table)}"):
        _carry_out(demo, units)
    return _report(demo)


def plan_units(demo: Demo, base: Path, table: MasteryTable) -> list[Unit]:
    """Return everything to be measured, the long ones first: two buckets x two sizes x seeds, and the base."""
    settings = demo.settings
    common: dict[str, Any] = {
        "base": base,
        "table": demo.folder / "mastery",
        "folder": demo.folder / "runs",
        "settings": settings,
        "inputs": file_digest(demo.folder / "mastery" / RECORD_FILE),
        "device": demo.device,
    }
    large = settings.large(table)
    units = [
        Unit(bucket=bucket, n=n, seed=seed, sweep=n == large, **common)
        for n in (large, settings.small)
        for seed in settings.seeds
        for bucket in settings.buckets
    ]
    units[0] = replace(units[0], restored=demo.folder / "restored")
    return [*units, Unit(**common)]


def _claim(demo: Demo) -> None:
    folder = demo.folder
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name another folder with --out.")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / RECORD).is_file():
            raise ConfigError(f"{folder} is not empty and holds no demo; name another folder with --out.")
        demo.body["seconds"] = read_record(folder / RECORD, "demo")["seconds"]
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}; name another folder with --out.") from error
    demo.write()


def _mastery(demo: Demo, lab: Lab) -> MasteryTable:
    """Probe the laboratory model, or read the table that an earlier run finished for the same laboratory."""
    from sftknow.mastery.probe import probe

    folder = demo.folder / "mastery"
    table = _reusable(folder, lab)
    if table is None:
        journal = demo.folder / f"mastery-{lab.record['key']}.journal"
        table = probe(
            lab.folder,
            lab.facts,
            lab.relations,
            seed=demo.settings.sampling_seed,
            device=demo.device,
            workers=demo.workers,
            journal=journal,
        )
        table.write(folder, overwrite=True)
        journal.unlink()
    demo.body |= {
        "settings": demo.settings.record(table),
        "model": _model_fields(lab),
        "protocol": dict(table.protocol),
        "histogram": _histograms(table),
        "made_from": dict(table.made_from),
    }
    demo.write()
    demo.log(histogram_table(demo.body))
    return table


def _reusable(folder: Path, lab: Lab) -> MasteryTable | None:
    """Return the finished table where it was made from this very laboratory model, else None."""
    try:
        table = read_mastery(folder)
    except DataError:
        return None
    return table if table.made_from["model"]["digest"] == model_identity(lab.folder)["digest"] else None


def _carry_out(demo: Demo, units: Sequence[Unit]) -> None:
    finished = [(unit, record) for unit in units if (record := unit.finished())]
    left = [unit for unit in units if not unit.finished()]
    if finished:
        demo.log(f"{len(finished)} of {len(units)} were finished before and are kept")
    for unit, record in finished:
        _add(demo, unit, record)
    with counter(label="fine-tunings", total=len(units), unit="run") as done:
        done.update(len(finished))
        for unit, record in run_side_by_side(run_unit, left, workers=demo.workers):
            _add(demo, unit, record)
            demo.write()
            done.update(1)
            demo.log(_unit_line(unit, record))


def _add(demo: Demo, unit: Unit, record: Mapping[str, Any]) -> None:
    if unit.bucket is None:
        demo.body["base"] = record["score"]
        return
    demo.body["runs"].append(record["run"])
    for name in ("concentration", "sweeps"):
        demo.body[name] += record.get(name, [])
    if "restored" in record:
        demo.body["restored"] = record["restored"]


def _report(demo: Demo) -> Path:
    """Write the record and its report, and print the tables in the order of the method."""
    for name in ("runs", "concentration", "sweeps"):
        demo.body[name].sort(key=lambda entry: (entry["bucket"], entry["n"], entry["seed"]))
    demo.write()
    page = write_report(demo.folder / RECORD, demo.folder)
    results = read_results(demo.folder / RECORD)
    demo.log("\n== Accuracy and KL of the fine-tunings\n" + runs_table(results))
    demo.log("\n== Restoration: largest relative changes first, and as many at random\n" + sweep_table(results))
    demo.log("\n== The paper's findings, in this laboratory")
    for finding in findings(results):
        demo.log(f"{finding.verdict:>18}: {finding.text}")
    return page


def _plan_line(settings: DemoSettings, table: MasteryTable) -> str:
    low, high = settings.buckets
    return (
        f"buckets {low} and {high} x {settings.small} and {settings.large(table)} facts x {len(settings.seeds)} seeds, "
        "with KL, scores by lm-eval and restoration sweeps"
    )


def _unit_line(unit: Unit, record: Mapping[str, Any]) -> str:
    if unit.bucket is None:
        return f"base model, not tuned: {_accuracies(record['score'])}"
    run = record["run"]
    measured = f"{_accuracies(run['score'])}, KL {run['kl']['mean']:.2f}"
    swept = ", restoration swept" if unit.sweep else ""
    return f"bucket {unit.bucket}, {unit.n} facts, seed {unit.seed}: {measured}{swept}"


def _accuracies(score: Mapping[str, Any]) -> str:
    inside, outside = (100 * score[domain]["accuracy"] for domain in DOMAINS)
    return f"accuracy {inside:.1f} in domain, {outside:.1f} out of domain"


def _model_fields(lab: Lab) -> dict[str, Any]:
    names = ("parameters", "tokens", "steps", "final_loss", "seed", "retries", "seconds", "device")
    return {name: lab.record[name] for name in names} | {"recipe": lab.record["recipe"]}


def _histograms(table: MasteryTable) -> dict[str, list[int]]:
    counts = {
        f"{split}/{domain}": list(table.histogram(split=split, domain=domain)) for split in SPLITS for domain in DOMAINS
    }
    return {name: numbers for name, numbers in counts.items() if any(numbers)}
