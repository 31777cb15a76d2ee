"""`import gigamask`: what it gives, that it is light, and that type checkers see what the interpreter gives."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import gigamask
from tests.paths import PHOTOS, ROOT

PHOTO = PHOTOS / "nuts" / "nuts_0.jpg"
HEAVY = ("torch", "ray", "prefect", "pyarrow", "deltalake", "numpy", "cv2", "pydantic", "boto3", "PIL", "numba")
MAX_IMPORT_S = 2.0
"""Generous: on a quiet machine it takes 0.01 s."""


def python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_is_fast_and_loads_nothing_heavy() -> None:
    program = f"""
import sys, time
began = time.perf_counter()
import gigamask
seconds = time.perf_counter() - began
print(seconds, *[name for name in {HEAVY} if name in sys.modules])
"""
    seconds, *loaded = python(program).split()
    print(f"import gigamask: {float(seconds):.3f} s")
    assert loaded == []
    assert float(seconds) < MAX_IMPORT_S


@pytest.mark.parametrize(
    ("name", "needless"),
    [
        ("rle", ["torch", "ray", "prefect", "pyarrow"]),
        ("Dataset", ["torch", "ray", "prefect"]),
        ("load_model", ["ray", "prefect", "pyarrow", "deltalake"]),
        ("generate_masks", ["ray", "prefect", "pyarrow", "deltalake"]),
        ("mask_images", ["ray", "prefect"]),
        ("train_on_snapshot", ["ray", "prefect"]),
    ],
)
def test_a_name_loads_only_what_it_needs(name: str, needless: list[str]) -> None:
    program = f"import sys, gigamask\ngigamask.{name}\nprint(*[each for each in {needless} if each in sys.modules])"
    assert python(program).split() == []


@pytest.mark.parametrize("name", gigamask.__all__)
def test_every_public_name_loads_and_is_documented(name: str) -> None:
    value = getattr(gigamask, name)
    assert name in dir(gigamask)
    if name not in ("PRESETS", "__version__"):
        assert (value.__doc__ or "").strip(), f"{name} has no docstring"


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match=r"generate_mask'; see gigamask\.__all__"):
        _ = gigamask.generate_mask  # type: ignore[attr-defined]


def test_type_checkers_see_the_same_names_from_the_same_homes() -> None:
    tree = ast.parse((ROOT / "gigamask" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {node.module: tuple(sorted(alias.name for alias in node.names)) for node in imports}
    assert seen == {home: tuple(sorted(names)) for home, names in gigamask._HOMES.items()}
    assert {*gigamask._HOME_OF, "__version__"} == set(gigamask.__all__)


def test_every_home_is_where_the_name_is_defined() -> None:
    for name, home in gigamask._HOME_OF.items():
        value = getattr(gigamask, name)
        defined_in = getattr(value, "__module__", None)
        if defined_in is not None:
            assert defined_in == home, f"{name} is taken from {home}, but defined in {defined_in}"


def test_the_version_is_that_of_the_distribution() -> None:
    assert gigamask.__version__ == importlib.import_module("importlib.metadata").version("gigamask")


def test_a_photo_is_read_as_ingest_stores_it(tmp_path: Path) -> None:
    dataset = gigamask.Dataset.create(tmp_path / "dataset")
    gigamask.ingest_photos([PHOTO], dataset)
    ((_, stored),) = dataset.read_images(dataset.image_shards()[0])
    assert (gigamask.read_photo(PHOTO) == gigamask.images.decode(stored)).all()


def test_a_photo_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(PHOTO.read_bytes()[:5000])
    with pytest.raises(ValueError, match="truncated"):
        gigamask.read_photo(tmp_path / "cut.jpg")
    with pytest.raises(ValueError, match="unreadable"):
        gigamask.read_photo(tmp_path / "none.jpg")
