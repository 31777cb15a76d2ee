import os
import subprocess
import sys
from urllib.request import getproxies, proxy_bypass

import pytest

from flows.cli.environment import except_loopback
from tests.paths import ROOT


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_hosts_that_a_user_exempts_in_one_spelling_are_exempt_in_both(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for spelling in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(spelling, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv(name, "store.example, 10.1.2.3")
    except_loopback(os.environ)
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "store.example,10.1.2.3,127.0.0.1,localhost,::1"
    assert all(proxy_bypass(host) for host in ("store.example", "10.1.2.3", "127.0.0.1", "localhost"))
    assert not proxy_bypass("elsewhere.example")


def test_hosts_of_both_spellings_are_joined_once_and_a_second_call_changes_nothing() -> None:
    environment = {"no_proxy": "a.example,localhost", "NO_PROXY": "b.example,,a.example"}
    except_loopback(environment)
    assert environment["no_proxy"] == "a.example,localhost,b.example,127.0.0.1,::1"
    again = dict(environment)
    except_loopback(again)
    assert again == environment


def test_a_star_goes_on_to_exempt_every_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    except_loopback(os.environ)
    assert "http" in getproxies()
    assert proxy_bypass("elsewhere.example")


def test_a_command_that_ran_out_of_memory_names_the_limit_of_its_process() -> None:
    program = "import resource; resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30)); "
    program += "from flows.cli.main import _explain_memory; print(_explain_memory(MemoryError('8 bytes')))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("out of memory (8 bytes); `ulimit -v` allows 5.0 GiB; ")


def test_the_plots_of_a_command_need_no_backend_of_a_notebook() -> None:
    command = [sys.executable, "-c", "from flows.cli.environment import prepare; prepare(); import matplotlib.figure"]
    environment = os.environ | {"MPLBACKEND": "module://matplotlib_inline.absent"}
    subprocess.run(command, cwd=ROOT, check=True, env=environment)
