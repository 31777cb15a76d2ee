"""Settings compose from defaults, a preset, a file and --set; nothing wrong passes in silence."""

from pathlib import Path

import pytest

from engine.automatic.config import PRESETS
from flows.config.load import to_tree, validated
from flows.config.run import RunConfig, load_run_config


def test_without_anything_given_the_defaults_and_the_grid_preset_hold() -> None:
    config = load_run_config()
    assert config == RunConfig()
    assert config.generate == PRESETS["grid"]


def test_a_preset_is_where_generate_starts_and_assignments_come_after_it() -> None:
    config = load_run_config(preset="paper", assignments=["generate.points_per_side=16"])
    assert config.generate.crop_layers == PRESETS["paper"].crop_layers
    assert config.generate.points_per_side == 16


def test_named_options_win_over_assignments_and_assignments_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('model = "vit_b"\ndataset = "from-file"\n[ingest]\nlicense = "CC0-1.0"\n')
    config = load_run_config(file=file, assignments=["dataset=from-set"], model="seed")
    assert (config.model, config.dataset, config.ingest.license) == ("seed", "from-set", "CC0-1.0")


def test_a_file_of_windows_notepad_is_read(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('model = "vit_b"\n', encoding="utf-8-sig")  # it begins with a byte-order mark
    assert load_run_config(file=file).model == "vit_b"


def test_none_can_be_assigned() -> None:
    assert load_run_config(assignments=["ingest.shortest_side_px=none"]).ingest.shortest_side_px is None


def test_settings_survive_the_way_through_plain_values() -> None:
    config = load_run_config(preset="paper", assignments=["pool.workers=3"])
    assert validated(RunConfig, to_tree(config)) == config


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("generate.point_per_side=8", "did you mean generate.points_per_side"),
        ("zebra=1", "known keys: dataset, model"),
        ("generate.points_per_side=many", r"generate.points_per_side: got 'many'"),
        ("generate.points_per_side=0", "points_per_side"),
        ("preset=huge", "known presets are grid, paper"),
        ("points_per_side", "expected key=value"),
        ("generate=3", "generate"),
        ("pool.workers=0", "workers is 0, expected at least 1"),
    ],
)
def test_a_wrong_assignment_is_refused_with_what_would_be_right(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_run_config(assignments=[assignment])


@pytest.mark.parametrize("content", ["model = ", "model = 3", "[generate]\nspeed = 1"])
def test_a_wrong_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"settings|model|speed"):
        load_run_config(file=file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such settings file"):
        load_run_config(file=tmp_path / "absent.toml")
