"""Metrics of a server at work, as Prometheus' own parser reads them."""

from prometheus_client.parser import text_string_to_metric_families

from tests.stages.annotator.in_process import Site


def metrics_of(site: Site) -> dict[tuple[str, ...], float]:
    """Samples by their name and the values of their labels."""
    answer = site.anyone().get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.text)
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_rounds_queues_and_clicks_are_counted(site: Site, image_ids: list[int]) -> None:
    opened = site.open_round(images=4)
    before = metrics_of(site)
    assert before["gigamask_round_answers", opened, "assisted_manual", "free"] == 4
    assert before["gigamask_reviews_waiting",] == 0
    assert before["gigamask_prompts_waiting",] == 0

    # A click, and a task that is held
    ann = site.logged_in("ann")
    ann.post("/api/tasks/claim", json={})
    answer = ann.post(f"/api/images/{image_ids[0]}/predict", json={"clicks": [{"x": 20, "y": 20}]})
    assert answer.status_code == 200, answer.text
    after = metrics_of(site)
    assert after["gigamask_round_answers", opened, "assisted_manual", "leased"] == 1
    assert after["gigamask_round_answers", opened, "assisted_manual", "free"] == 3
    assert after["gigamask_click_seconds_count",] == before["gigamask_click_seconds_count",] + 1
    assert after["gigamask_click_seconds_bucket", "+Inf"] == after["gigamask_click_seconds_count",]
    took_s = after["gigamask_click_seconds_sum",] - before["gigamask_click_seconds_sum",]
    assert answer.json()["decoded_ms"] / 1000 <= took_s < 60


def test_metrics_name_nobody(site: Site) -> None:
    site.open_round(images=2)
    text = site.anyone().get("/metrics").text
    assert not [name for name in ("ann", "bob", "rita", "lea") if f'"{name}"' in text]
