"""The HTML report of a loop: what the rounds gained over the control, the curves, and every figure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import matplotlib

from flows.loop.plot import TITLES, draw_arms, draw_gains, measured_names
from flows.loop.table import COLUMNS, describe_training, format_figure, list_measured
from flows.pages.markup import card, document, note, table, text, tile
from flows.pages.svg import ACCENT, REFERENCE, STYLE, new_figure, to_svg
from flows.words import moment

COLOURS = {"new masks": ACCENT, "control": REFERENCE}


def render_loop(result: Mapping[str, Any], title: str, *, now: datetime | None = None) -> str:
    """Render the whole page of what `run_loop` returns, or of what it has measured so far."""
    body = (
        f'<p class="kicker">gigamask loop</p><h1>{text(title)}</h1>'
        f'<div class="tiles">{_tiles(result)}</div><p class="verdict">{text(_verdict(result))}</p>'
        f"{_curves(result)}"
        f"<h2>Every model</h2>{card(_models(result))}"
        f"<h2>Gain over the control</h2>{card(_gains(result['gains']))}"
        f"<footer>Written {moment(now or datetime.now(UTC))}.</footer>"
    )
    return document(f"{title} · gigamask loop", body)


def _tiles(result: Mapping[str, Any]) -> str:
    arms = result["rounds"]
    rounds, seeds = len({arm["round"] for arm in arms}), len({arm["seed"] for arm in result["start"]})
    promoted = sum(arm["decision"] == "promotion" for arm in arms)
    judged = sum(arm["arm"] == "new masks" for arm in arms)
    tiles = tile("rounds", str(rounds), "Rounds", f"{seeds} {'seed' if seeds == 1 else 'seeds'}")
    tiles += tile("masks", f"{max((arm['masks'] for arm in arms), default=0):,}", "Masks of one seed")
    tiles += tile("promoted", f"{promoted} of {judged}", "Models promoted")
    gain = result["gain_over_control"]
    if gain is not None:
        tiles += tile("gain", f"{gain['miou_1']:+.3f}", "mIoU after 1 click", "over the control, last round")
    return tiles


def _verdict(result: Mapping[str, Any]) -> str:
    gain = result["gain_over_control"]
    if gain is None:
        return "No round was measured yet beside a control of equal training without the new masks."
    low_high = gain["miou_1_interval"]
    if low_high is None:
        said = "too few photographs for an interval"
    elif low_high[0] > 0:
        said = "more than chance explains"
    elif low_high[1] < 0:
        said = "less than the control: the new masks did harm"
    else:
        said = "no more than chance explains"
    return (
        f"After round {gain['round']} the new masks changed the mean IoU of one click, on photographs never trained "
        f"on, by {format_figure(gain, 'miou_1')} against the control: {said}. Seconds are simulated by a model of time."
    )


def _curves(result: Mapping[str, Any]) -> str:
    cards = []
    for name in measured_names(result) if result["gains"] else []:
        with matplotlib.rc_context(STYLE):
            figure, axes = new_figure()
            draw_arms(axes, result, name, COLOURS)
            axes.set_xlabel("round")
            axes.legend(frameon=False, fontsize=8, labelcolor="linecolor")
            curves = to_svg(figure, f"{TITLES[name]} by round")
            figure, axes = new_figure()
            draw_gains(axes, result["gains"], name, ACCENT)
            axes.set_xlim(-0.1, max(gain["round"] for gain in result["gains"]) + 0.1)
            axes.set_xlabel("round")
            gains = to_svg(figure, f"Gain over the control: {TITLES[name]}")
        about = "Thin lines: seeds. Thick lines: their means. Below: the gain over the control, 95 % intervals."
        cards.append(f'<div class="card"><h3>{text(TITLES[name])}</h3>{curves}{gains}<p>{about}</p></div>')
    labels = note("The control was trained as long, without the new masks. Round 0 is the model of the beginning.")
    return f'<h2>By round</h2>{labels}<div class="plots">{"".join(cards)}</div>' if cards else ""


def _models(result: Mapping[str, Any]) -> str:
    arms = sorted([*result["start"], *result["rounds"]], key=lambda arm: (arm["seed"], arm["round"]))
    names = list_measured(arms)
    rows = [
        (
            str(arm["seed"]),
            str(arm["round"]),
            describe_training(arm["arm"]),
            text(arm["decision"] or ""),
            *(format_figure(arm, name) for name in names),
            f"<code>{text(arm['model_id'])}</code>",
        )
        for arm in arms
    ]
    titles = ("#Seed", "#Round", "Trained", "Gate", *(f"#{COLUMNS[name]}" for name in names), "Model")
    return table(titles, rows, kind="figures")


def _gains(gains: Sequence[Mapping[str, Any]]) -> str:
    if not gains:
        return "None yet."
    names = list_measured(gains)
    rows = [(str(gain["round"]), *(format_figure(gain, name) for name in names)) for gain in gains]
    about = "Over the same photographs and masks; 95 % intervals by bootstrap over photographs."
    return table(("#Round", *(f"#{COLUMNS[name]}" for name in names)), rows, kind="figures") + note(about)
