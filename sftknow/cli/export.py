"""`sftknow export`: facts, or one's own fine-tuning set, with their mastery, for any trainer."""

from pathlib import Path
from typing import Any

import click

from sftknow.cli.common import CONTEXT, FOLDER, examples


@examples(
    "sftknow export mastery/ --bucket 1,2,3 --out known.jsonl",
    "sftknow export mastery/ --bucket 1,2,3,4 --split train --format datasets --out known",
    "sftknow export mastery/ --data my-sft.jsonl --field question --bucket 1,2,3,4 --out my-sft-known.jsonl",
)
@click.command(context_settings=CONTEXT)
@click.argument("table", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="The file, or the folder for datasets.")
@click.option("--bucket", default="0,1,2,3,4", help="Buckets to keep; leaving out 0 leaves out what is not known.")
@click.option("--split", type=click.Choice(["train", "dev", "test"]), help="Keep this split only.")
@click.option("--data", type=FOLDER, help="Label this JSONL fine-tuning set instead of exporting the facts.")
@click.option("--field", default="question", help="With --data: the field that holds the question or prompt.")
@click.option("--keep-unknown", is_flag=True, help="With --data: keep rows whose question was not probed.")
@click.option("--format", "kind", type=click.Choice(["jsonl", "parquet", "datasets"]), help="By default by OUT's name.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
def command(
    table: Path,
    out: Path,
    bucket: str,
    split: Any,
    data: Path | None,
    field: str,
    keep_unknown: bool,
    kind: str | None,
    overwrite: bool,
) -> None:
    """Export the facts of mastery TABLE, or a fine-tuning set of one's own, with mastery and bucket of each row.

    Leaving out what the model does not know is the paper's plainest advice for fine-tuning data.
    """
    from sftknow.mastery.export import check_export, fact_rows, label_own, read_own, write_rows
    from sftknow.mastery.table import read_mastery
    from sftknow.tuning.selection import parse_buckets

    kind = kind or {".jsonl": "jsonl", ".parquet": "parquet"}.get(out.suffix, "datasets")
    check_export(out, kind, overwrite=overwrite)
    found, buckets = read_mastery(table), parse_buckets(bucket)
    if data is None:
        rows = fact_rows(found, buckets=buckets, split=split)
    else:
        labelled = label_own(read_own(data), found, field=field, buckets=buckets, keep_unknown=keep_unknown)
        rows = list(labelled.rows)
        fate = "kept" if keep_unknown else "left out"
        click.echo(
            f"{labelled.known:,} rows ask what was probed; {labelled.unknown:,} do not, and are {fate}", err=True
        )
    write_rows(rows, out, kind, overwrite=overwrite)
    click.echo(f"wrote {len(rows):,} rows to {out}")
