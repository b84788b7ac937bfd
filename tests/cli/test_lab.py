import pytest
from click.testing import CliRunner

from sftknow.cli.main import cli
from sftknow.errors import ConfigError, DataError


def test_build_prints_the_folder_of_the_copy_and_says_what_it_did(tiny_lab, tmp_path):
    done = CliRunner().invoke(cli, ["lab", "build", "--size", "tiny", "--out", str(tmp_path / "lab")])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'lab'}\n"
    assert done.stderr == f"using the cached laboratory {tiny_lab.folder}\n"
    assert {path.name for path in (tmp_path / "lab").iterdir()} == {path.name for path in tiny_lab.folder.iterdir()}


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (["--size", "huge"], ConfigError, "size 'huge' of the laboratory is unknown"),
        (["--facts", "nothing.zip"], DataError, "nothing.zip does not exist"),
        (["--size", "tiny", "--seed", "99", "--device", "cuda:77"], ConfigError, "device 'cuda:77' cannot be used"),
    ],
)
def test_bad_input_is_refused_before_any_work(tiny_lab, options, error, text):
    done = CliRunner().invoke(cli, ["lab", "build", *options])
    assert isinstance(done.exception, error)
    assert text in str(done.exception)
