import pytest
import worlds

from sftknow.records import write_record
from sftknow.report.page import write_report

MADE_FROM = {"base": {"path": "demo/model", "hub_id": None, "digest": "8f3a2c90d1e4b576"}}


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """A finished demo's folder with its report."""
    folder = tmp_path_factory.mktemp("demo")
    write_record(folder / "demo.json", "demo", worlds.record(), made_from=MADE_FROM, seeds=[0, 1, 2])
    write_report(folder, folder)
    return folder
