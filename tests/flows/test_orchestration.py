"""Flows and tasks without Prefect, and what is said where a server is named that is none."""

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from flows.local_server import find_free_port
from flows.orchestration import PREFECT_URL, flow, task, use_prefect

PLAIN = """
import sys
from flows.orchestration import flow, task

@task("double")
def double(number): return 2 * number

@flow("count")
def count(number, *, more): return double(number) + more

print(count(20, more=2), count.__name__, "prefect" in sys.modules)
"""


@flow("count")
def count(number: int) -> int:
    return number


@pytest.fixture
def named_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (PREFECT_URL, "PREFECT_API_URL"):
        monkeypatch.setenv(name, "")  # so that the end of the test restores it


def test_without_a_server_flows_and_tasks_are_plain_functions_and_prefect_is_not_imported() -> None:
    done = subprocess.run([sys.executable, "-c", PLAIN], capture_output=True, text=True, check=True)
    assert done.stdout == "42 count False\n"


@pytest.mark.usefixtures("named_server")
def test_a_server_that_does_not_answer_is_named_with_what_to_do() -> None:
    use_prefect(f"http://127.0.0.1:{find_free_port()}/api")
    with pytest.raises(ValueError, match=r"no Prefect server answers .*without --prefect-url none is needed"):
        count(1)


@pytest.mark.usefixtures("named_server")
def test_another_kind_of_server_is_no_prefect_server() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # it answers 501 to everything
        Thread(target=server.serve_forever, daemon=True).start()
        use_prefect(f"http://127.0.0.1:{server.server_port}/api")
        with pytest.raises(ValueError, match="501"):
            count(1)
        server.shutdown()


def test_a_task_keeps_its_name_and_docstring() -> None:
    @task("named")
    def measure() -> None:
        """Measure."""

    assert (measure.__name__, measure.__doc__) == ("measure", "Measure.")
