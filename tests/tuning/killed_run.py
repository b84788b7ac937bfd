"""Train in child processes that are killed at chosen updates, then resume: called by test_resume.py in one process.

python killed_run.py BASE TABLE OUT OPTIONS_JSON KILLS_JSON
"""

import json
import os
import signal
import sys
from pathlib import Path

import datasets  # noqa: F401  (the slow imports happen once, before forking)

from sftknow.models import load_model
from sftknow.tuning import trainer as trainer_module
from sftknow.tuning.train import train


def train_in_child(kill_at, **options):
    pid = os.fork()
    if pid == 0:
        if kill_at is not None:
            step_end = trainer_module.LossBar.on_step_end

            def stop_here(self, args, state, control, **kwargs):
                step_end(self, args, state, control, **kwargs)
                if state.global_step == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

            trainer_module.LossBar.on_step_end = stop_here
        train(**options)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


if __name__ == "__main__":
    base, table, out = map(Path, sys.argv[1:4])
    load_model(base)
    options = {**json.loads(sys.argv[4]), "base": base, "table": table, "out": out}
    for update in json.loads(sys.argv[5]):
        assert train_in_child(update, resume=True, **options) == signal.SIGKILL, "the child was not killed"
        assert not out.exists()
    assert train_in_child(None, resume=True, **options) == 0, "the resumed run failed"
