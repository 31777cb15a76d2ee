"""Decoding in the browser: the same masks as the server's, the measured choice, and what happens without either one."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from stages.annotator.decoders import WEB, find_runtime
from storage import rle
from tests.stages.annotator.web.late_work import tolerant
from tests.stages.annotator.web.page_site import PageSite, Person, middle, wait_until_saved
from tests.stages.annotator.web.places import stored

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page")]

Make = Callable[..., Person]
Prompt = dict[str, Any]
MAX_DIFFERENT_PX = 3
"""Most pixels by which two masks of one prompt may differ, as floats are added in another order; so far none did."""

BOTH = """
async ([image, model, prompts]) => {
  const { Api } = await import("/app/api.js");
  const { DecodingWorker } = await import("/decoder/client.js");
  const api = new Api();
  await api.me();
  const worker = new DecodingWorker();
  await worker.open(model, image);
  const found = [];
  for (const { after, ...prompt } of prompts) {
    const idOf = (place) => found[after][place].prediction_id;
    const of = (place) => after === undefined ? null : { prediction_id: idOf(place), candidate: 0 };
    const mask = prompt.mask === undefined ? null : found[prompt.mask].server.candidates.at(-1).rle;
    const given = mask && { size: mask.size, counts: mask.counts };
    const body = { clicks: [], box: null, scribbles: [], ...prompt, mask: given };
    const server = await api.post(`/api/images/${image}/predict`, { ...body, continued: of("server"), model });
    const browser = await worker.predict(model, image, { ...body, continued: of("browser") });
    found.push({ server, browser });
  }
  return found;
}
"""

PREPARED = """
async () => {
  const { Predictor } = await import("/decoder/predict.js");
  const asked = [];
  const at = (layer, x0, x1) => ({ xyxy: [x0, 0, x1, 60], layer });
  const image = {
    size: [60, 100],
    sha256: "",
    windows: [at(0, 0, 100), at(1, 0, 60), at(1, 40, 100), at(2, 0, 40), at(2, 30, 70), at(2, 60, 100)],
    prepare: (crop) => asked.push(crop),
    decode: () => new Promise(() => {}),
  };
  const prompt = { clicks: [{ x: 90, y: 30, positive: true }], box: null, continued: null, mask: null };
  void new Predictor({ input_side: 64, logits_side: 16 }).predict(image, prompt);
  return asked;
}
"""
"""Windows that are fetched for a click while the whole picture is being decoded."""
FAR_AWAY = """
const { now } = performance;
let awayMs = 0;
performance.now = () => now.call(performance) + awayMs;
const ask = window.fetch;
window.fetch = async (path, ...more) => {
  const answer = await ask(path, ...more);
  if (String(path).endsWith("/predict")) awayMs += 60_000;
  return answer;
};
"""
"""Has every answer of the server to a prompt arrive a minute late, by the page's clock: no machine is that slow."""


@pytest.fixture(autouse=True)
def runtime() -> None:
    if not find_runtime(WEB):
        pytest.skip("onnxruntime-web is not here (run `make page` where Node is installed)")


def click(x: float, y: float, *, positive: bool = True) -> dict[str, Any]:
    return {"x": x, "y": y, "positive": positive}


def prompts_on(height: int, width: int) -> list[Prompt]:
    """Prompts of every kind; `after` continues the prediction of an earlier one, `mask` refines its last mask."""

    def at(x: float, y: float, *, positive: bool = True) -> dict[str, Any]:
        return click(x * width, y * height, positive=positive)

    def box(x0: float, y0: float, x1: float, y1: float) -> list[float]:
        return [x0 * width, y0 * height, x1 * width, y1 * height]

    def scribble(*points: tuple[float, float], positive: bool = True) -> dict[str, Any]:
        return {"points": [(x * width, y * height) for x, y in points], "positive": positive}

    beside = at(0.45, 0.62, positive=False)
    return [
        {"clicks": [at(0.5, 0.5)]},
        {"clicks": [at(0.2, 0.3)]},
        {"clicks": [at(0.83, 0.74)]},
        {"clicks": [at(0.0, 1.0)]},
        {"clicks": [at(0.5, 0.5), beside], "after": 0},
        {"clicks": [at(0.5, 0.5), beside, at(0.55, 0.45)], "after": 4},
        {"clicks": [at(0.2, 0.3), at(0.95, 0.95, positive=False)], "after": 1},
        {"box": box(0.3, 0.3, 0.7, 0.8)},
        {"box": box(0.05, 0.1, 0.2, 0.3)},
        {"box": box(0.0, 0.0, 1.0, 1.0)},
        {"box": box(0.3, 0.3, 0.7, 0.8), "clicks": [at(0.5, 0.5)]},
        {"box": box(0.3, 0.3, 0.7, 0.8), "clicks": [at(0.5, 0.5), at(0.32, 0.32, positive=False)], "after": 10},
        {"clicks": [at(0.4, 0.4), at(0.6, 0.6)]},
        {"clicks": [at(0.4, 0.4), at(0.6, 0.6), at(0.1, 0.9, positive=False)]},
        {"clicks": [at(0.52, 0.48)], "mask": 0},
        {"clicks": [at(0.9, 0.9)], "mask": 7},
        {"clicks": [beside], "mask": 7},
        {"clicks": [at(0.7, 0.7), beside], "after": 15},
        {"clicks": [at(0.15, 0.2)], "mask": 8},
        {"box": box(0.25, 0.25, 0.75, 0.85), "mask": 7},
        {"scribbles": [scribble((0.3, 0.3), (0.5, 0.32), (0.52, 0.7))]},
        {
            "scribbles": [scribble((0.3, 0.3), (0.5, 0.32)), scribble((0.1, 0.9), (0.9, 0.9), positive=False)],
            "after": 20,
        },
        {"clicks": [at(0.5, 0.5)], "scribbles": [scribble((0.4, 0.4))]},
        {"scribbles": [scribble((0.2, 0.2), (0.22, 0.2))], "mask": 0},
    ]


def pixels(candidate: dict[str, Any]) -> np.ndarray:
    height, width = candidate["rle"]["size"]
    return rle.decode(rle.from_coco(candidate["rle"]["counts"], height=height, width=width))


@pytest.mark.parametrize("photo", ["desk", "places"])
def test_browser_and_server_give_the_same_masks(site: PageSite, person: Make, photo: str) -> None:
    image_id, height, width = site.images[photo]
    page = person(f"parity-{photo}").open("/#rounds", wait_for="#page > *")
    model_id = page.evaluate("fetch('/api/decoder').then((answer) => answer.json())")["model_id"]
    found = page.evaluate(BOTH, [str(image_id), model_id, prompts_on(height, width)])
    assert len(found) == 24
    for number, pair in enumerate(found):
        server, browser = pair["server"], pair["browser"]
        for name in ("basis", "model_id", "image_sha256"):
            assert browser[name] == server[name], number
        assert len(browser["candidates"]) == len(server["candidates"]), number
        for one, other in zip(browser["candidates"], server["candidates"], strict=True):
            different = np.count_nonzero(pixels(one) ^ pixels(other))
            assert different <= MAX_DIFFERENT_PX, number
            assert one["predicted_iou"] == pytest.approx(other["predicted_iou"], abs=1e-4), number
            assert one["stability_score"] == pytest.approx(other["stability_score"], abs=2e-3), number


def click_at(page: Page, dx: float, dy: float, *, suggestions: int, **options: Any) -> None:
    """Click on the picture, and wait for the masks, wherever they are decoded."""
    page.mouse.click(*middle(page, dx, dy), **options)
    expect(page.locator(".status")).to_contain_text("Enter accepts", timeout=60_000)
    expect(page.locator(".choice:visible")).to_have_count(suggestions)


def test_the_faster_place_is_measured_and_shown_and_its_masks_are_stored_like_any_other(
    site: PageSite, person: Make
) -> None:
    asked: list[str] = []
    rows = {}
    for place in ("server", "browser"):
        site.open_round("desk")
        ann = person(f"far-{place}", decoding="server" if place == "server" else "fastest")
        if place == "browser":
            ann.context.add_init_script(FAR_AWAY)
        page = ann.open()
        if place == "browser":
            line = page.locator(".decoding[data-place=browser][data-state=ready]")
            line.wait_for(timeout=60_000)
            assert re.search(r"browser: p50 \d+ ms, p95 \d+ ms · .*server: p50 \d+ ms, p95 \d+ ms", line.inner_text())
            page.on("request", lambda request: asked.append(request.url))
        click_at(page, 20, 10, suggestions=3)
        page.keyboard.press("c")
        click_at(page, 60, 40, suggestions=0)
        page.keyboard.press("Enter")
        expect(page.locator(".masks li")).to_have_count(1)
        page.locator(".masks li").click()
        click_at(page, -30, 60, suggestions=2)
        page.keyboard.press("Enter")
        rows[place] = stored(ann, page, revision=2).masks
    assert not [url for url in asked if "/predict" in url]
    (server,), (browser,) = rows["server"], rows["browser"]
    assert np.count_nonzero(rle.decode(server.rle) ^ rle.decode(browser.rle)) <= MAX_DIFFERENT_PX
    assert (browser.clicks, browser.edits, browser.model_id) == (server.clicks, server.edits, server.model_id)


def test_windows_of_a_click_are_fetched_while_the_whole_picture_is_decoded(site: PageSite, person: Make) -> None:
    page = person("early").open("/#rounds", wait_for="#page > *")
    assert page.evaluate(PREPARED) == [[40, 0, 100, 60], [60, 0, 100, 60]]


def test_a_mask_begun_on_the_server_goes_on_in_the_browser_offline_and_back_on_the_server(
    site: PageSite, person: Make
) -> None:
    site.open_round("desk")
    ann = person("offline-clicker")
    page = ann.open()
    click_at(page, 0, 0, suggestions=3)
    page.select_option(".decoding select", "browser")
    page.locator(".decoding[data-state=ready][data-place=browser]").wait_for(timeout=60_000)
    ann.context.set_offline(True)
    click_at(page, 30, 10, suggestions=2, button="right")
    page.keyboard.press("c")
    click_at(page, 60, -20, suggestions=0)
    ann.context.set_offline(False)
    page.select_option(".decoding select", "server")
    with page.expect_response("**/predict") as answer:
        click_at(page, -60, 20, suggestions=2)
    assert answer.value.json()["basis"] == "mask"  # the server does not have the browser's logits
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(1)
    wait_until_saved(page)
    assert [mask.clicks for mask in ann.state(ann.task_id(page)).masks] == [4]
    ann.problems.clear()  # the browser reports requests that found no network


def test_a_page_that_is_opened_again_without_the_server_still_decodes(site: PageSite, person: Make) -> None:
    site.open_round("desk")
    ann = tolerant(person("reloaded-offline", decoding="browser"))
    page = ann.open()
    page.locator(".decoding[data-state=ready]").wait_for(timeout=60_000)
    page.wait_for_function("async () => navigator.serviceWorker.controller && (await caches.match('/'))")
    page.wait_for_function("async () => await caches.match('/decoder/worker.js')")
    site.kill()
    try:
        page.reload()
        page.locator(".decoding[data-state=ready][data-place=browser]").wait_for(timeout=60_000)
        click_at(page, 0, 0, suggestions=3)
        page.keyboard.press("c")
        click_at(page, 30, 10, suggestions=0)
        page.keyboard.press("Enter")
        expect(page.locator(".saved")).to_have_attribute("data-state", "offline")
        assert ann.state(ann.task_id(page)).revision == 0
    finally:
        site.start()
    wait_until_saved(page)
    assert [mask.clicks for mask in ann.state(ann.task_id(page)).masks] == [2]


def test_bytes_that_are_not_the_servers_are_refused_and_the_server_decodes(site: PageSite, person: Make) -> None:
    site.open_round("desk")
    ann = person("tampered", decoding="browser")

    def tamper(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.body()[:-1] + b"!")

    ann.context.route("**/embedding?*", tamper)
    page = ann.open()
    expect(page.locator(".decoding")).to_contain_text("do not have the SHA-256", timeout=60_000)
    with page.expect_response("**/predict"):
        click_at(page, 0, 0, suggestions=3)


def test_a_preview_comes_from_the_browser_where_it_decodes(site: PageSite, person: Make) -> None:
    site.open_round("desk")
    ann = person("preview-browser", decoding="browser", preview=True)
    page = ann.open()
    page.locator(".decoding[data-state=ready]").wait_for(timeout=60_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    canvas = page.locator("canvas.picture")

    # The pointer rests outside the picture first: nothing is shown, and a first answer, however slow, is shown
    before = canvas.screenshot()
    page.mouse.move(*middle(page, 20, 10))
    for _ in range(300):
        if canvas.screenshot() != before:
            break
        page.wait_for_timeout(100)
    assert canvas.screenshot() != before
    page.keyboard.press("Shift+H")
    expect(page.get_by_label("Preview")).not_to_be_checked()
    for _ in range(300):
        if canvas.screenshot() == before:
            break
        page.wait_for_timeout(100)
    assert canvas.screenshot() == before
    assert not [url for url in asked if "/predict" in url]


def test_embeddings_of_the_next_task_are_fetched_too(site: PageSite, person: Make) -> None:
    site.open_round("desk", "places")
    ann = person("ahead", decoding="browser")
    found: set[str] = set()
    ann.context.on("response", lambda answer: "/embedding?" in answer.url and found.add(answer.url.split("/")[5]))
    page = ann.open()
    page.locator(".decoding[data-state=ready]").wait_for(timeout=60_000)
    wanted = {str(site.images[photo][0]) for photo in ("desk", "places")}
    for _ in range(600):
        if found == wanted:
            break
        page.wait_for_timeout(100)
    assert found == wanted
