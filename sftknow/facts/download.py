"""Facts fetched because their address was given: by URL, resumed and checked, or from the Hugging Face Hub.

A file fetched by URL is kept in sftknow's cache with its SHA-256 beside it and fetched only once. The digest to check
it by stands behind the URL, ``https://.../dataset.zip#sha256=<64 hex digits>``; plain http needs one. Without one the
digest of the first download is what later ones are held to.

EntityQuestions is published at https://nlp.cs.princeton.edu/projects/entity-questions/dataset.zip.
"""

import contextlib
import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from sftknow.errors import DataError
from sftknow.facts.entity_questions import is_member
from sftknow.progress import counter
from sftknow.records import cache_folder, file_digest, sync_folder, write_text

ATTEMPTS = 5
TIMEOUT_SECONDS = 30.0
PIECE_BYTES = 1 << 18
MAX_DOWNLOAD_BYTES = 1 << 31
_DIGEST = re.compile(r"sha256=([0-9a-fA-F]{64})")
_HUB = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/(.+))?")


def fetch(source: str) -> Path:
    """Fetch what an address names, unless it has been fetched before, and return where it lies.

    Args:
        source: ``https://...`` (``#sha256=<hex>`` behind it is checked), ``http://...#sha256=<hex>``, or
            ``hf://datasets/org/name[@revision][/file]``.

    Raises:
        DataError: the address is malformed, cannot be reached, or holds something other than its digest says.
    """
    if source.startswith("hf://"):
        return fetch_from_hub(source)
    url, _, fragment = source.partition("#")
    digest = _DIGEST.fullmatch(fragment)
    if fragment and digest is None:
        raise DataError(f"{source}: what follows the '#' must be sha256=<64 hex digits>.")
    if digest is None and not url.startswith("https://"):
        raise DataError(f"{url} is not encrypted: give its digest with it, {url}#sha256=<64 hex digits>, or use https.")
    return fetch_url(url, digest[1].lower() if digest else None, cache_folder() / "downloads")


def fetch_url(url: str, sha256: str | None, folder: Path) -> Path:
    """Fetch one file into a folder, going on with a download that was cut short; a file that is whole is kept.

    Args:
        url: http or https.
        sha256: the digest that the file must have; None holds it to that of an earlier download, if there was one.
        folder: where it is kept; made if missing.

    Raises:
        DataError: the file cannot be fetched or written, or has another digest.
    """
    target = folder / _file_name(url)
    seal = target.with_name(target.name + ".sha256")
    known = seal.read_text(encoding="utf-8").split()[0] if seal.is_file() else None
    if target.is_file() and known is not None and sha256 in (None, known) and file_digest(target) == known:
        return target
    wanted = sha256 or known
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        _download(url, partial)
        found = file_digest(partial)
        if wanted is not None and found != wanted:
            partial.unlink()
            raise DataError(
                f"{url} has SHA-256 {found}, not {wanted} as {'asked for' if sha256 else 'when it was fetched first'}; "
                f"it was not kept. Check the address, or the digest{'' if sha256 else f' in {seal}'}."
            )
        partial.replace(target)
        sync_folder(folder)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {error.strerror or error}; SFTKNOW_CACHE names another folder."
        ) from error
    write_text(seal, f"{found}  {target.name}\n")
    return target


def _file_name(url: str) -> str:
    name = Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
    return f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{re.sub(r'[^A-Za-z0-9_.-]', '_', name) or 'file'}"


def _download(url: str, partial: Path) -> None:
    """Bring a partial file to its full length, over as many connections as that takes, within reason."""
    reason = ""
    for attempt in range(ATTEMPTS):
        time.sleep(attempt**2 / 10)
        try:
            if _download_on(url, partial):
                return
            reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise DataError(f"{url} answered {error.code} {error.reason}; check the address.") from error
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
    size = partial.stat().st_size if partial.is_file() else 0
    raise DataError(
        f"{url} cannot be fetched ({reason}); {size:,} bytes are kept, the same command goes on from there."
    )


def _download_on(url: str, partial: Path) -> bool:
    """Go on with a download over one connection; return whether the file is whole."""
    mark = partial.with_name(partial.name + ".mark")
    have = partial.stat().st_size if partial.is_file() and mark.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "sftknow", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", mark.read_text(encoding="utf-8"))
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        mark.unlink()  # the file there is shorter than the part here: begin anew
        return False
    with answer:
        return _receive(url, answer, partial, mark, have)


def _receive(url: str, answer: Any, partial: Path, mark: Path, have: int) -> bool:
    if url.startswith("https://") and not answer.url.startswith("https://"):
        raise DataError(f"{url} leads to {answer.url}, which is not encrypted; it was not fetched.")
    goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    if answer.status == 206 and not goes_on:
        mark.unlink()
        return False
    have = have if goes_on else 0
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length is not None else None
    if (total or 0) > MAX_DOWNLOAD_BYTES:
        raise DataError(f"{url} is {total:,} bytes long, more than facts can be; it was not fetched.")
    validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    if validator and not validator.startswith("W/"):
        write_text(mark, validator)
    else:
        mark.unlink(missing_ok=True)
    with partial.open("ab" if goes_on else "wb") as file, counter(label="fetching", total=total or 0, unit="B") as bar:
        bar.update(have)
        with contextlib.suppress(http.client.IncompleteRead, TimeoutError, ConnectionError):
            while piece := answer.read(PIECE_BYTES):
                have += file.write(piece)
                bar.update(len(piece))
                if have > MAX_DOWNLOAD_BYTES:
                    raise DataError(f"{url} does not end; it was not fetched.")
        file.flush()
        os.fsync(file.fileno())
    whole = total is None or have == total
    if whole:
        mark.unlink(missing_ok=True)
    return whole


def fetch_from_hub(reference: str) -> Path:
    """Fetch a dataset of facts from the Hugging Face Hub into its cache.

    Args:
        reference: ``hf://datasets/org/name[@revision]``, with ``/file`` behind it where the dataset holds several.
            Without a file it must hold the layout of the EntityQuestions archive, or one zip, or one JSONL file.

    Raises:
        DataError: the reference is malformed, cannot be fetched, or names nothing that holds facts.
    """
    match = _HUB.fullmatch(reference)
    if match is None:
        raise DataError(f"{reference} is not of the form hf://datasets/org/name[@revision][/file].")
    dataset, revision, file = match.groups()
    import huggingface_hub
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        if file is not None:
            return Path(huggingface_hub.hf_hub_download(dataset, file, repo_type="dataset", revision=revision))
        names = huggingface_hub.HfApi().list_repo_files(dataset, repo_type="dataset", revision=revision)
        members = [name for name in names if is_member(name)]
        if members:
            folder = huggingface_hub.snapshot_download(
                dataset, repo_type="dataset", revision=revision, allow_patterns=members
            )
            return Path(folder, members[0]).parent.parent
        return fetch_from_hub(f"{reference}/{_only_file(reference, names)}")
    except DataError:
        raise
    except Exception as error:  # the client raises many kinds: HTTP, offline, validation, disk
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise DataError(f"{reference} cannot be fetched from the Hub: {reason}.") from error


def _only_file(reference: str, names: list[str]) -> str:
    fitting = [name for ending in (".zip", ".jsonl") for name in names if name.endswith(ending)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(f"{reference} holds several files of facts; add one of them: {', '.join(sorted(fitting))}.")
    raise DataError(f"{reference} holds neither the files of the EntityQuestions archive nor a .zip or .jsonl file.")
