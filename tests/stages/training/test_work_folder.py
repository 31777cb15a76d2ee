import subprocess
import sys
from pathlib import Path

import pytest

from stages.training.work_folder import exclusive_lock


def test_one_training_at_a_time_holds_a_work_folder_until_its_process_ends(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from stages.training.work_folder import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(ValueError, match="work folder of a training that runs now"), exclusive_lock(tmp_path):
                pass
        finally:
            other.kill()
            other.wait()
        with exclusive_lock(tmp_path):
            pass
