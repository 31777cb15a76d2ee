"""prefect.yaml: the deployments of `gigamask serve` for a work pool and a shared Prefect server."""

from datetime import timedelta
from typing import Any

import yaml

from flows.config.serve import ServeSettings
from flows.schedules.deployments import ANCHOR, Scheduled, list_deployments

HEADER = """\
# The deployments of the engine, for a work pool and a shared Prefect server. Written by
#
#   gigamask serve --dataset '{{ $GIGAMASK_DATASET }}' --workspace '{{ $GIGAMASK_WORKSPACE }}' \\
#     --work '{{ $GIGAMASK_WORK }}' --prefect-yaml prefect.yaml
#
# Change schedules there, with --set or --config: each also stands among the parameters of its flow. Then, with
# PREFECT_API_URL and the three variables set:
#
#   prefect work-pool create gigamask --type process
#   prefect --no-prompt deploy --all
#   prefect worker start --pool gigamask
"""


def render_prefect_yaml(settings: ServeSettings, pool: str) -> str:
    """Render the deployments as prefect.yaml."""
    deployments = [_describe(each, settings, pool) for each in list_deployments(settings)]
    content = {"name": "gigamask", "deployments": deployments}
    return HEADER + str(yaml.safe_dump(content, sort_keys=False, width=110))


def _describe(each: Scheduled, settings: ServeSettings, pool: str) -> dict[str, Any]:
    schedule: dict[str, Any]
    if each.cron:
        schedule = {"cron": each.cron, "timezone": settings.timezone}
    else:
        seconds = timedelta(seconds=each.every_s).total_seconds()
        schedule = {"interval": seconds, "anchor_date": ANCHOR.isoformat(), "timezone": "UTC"}
    return {
        "name": each.name,
        "entrypoint": f"{each.flow.fn.__module__}.{each.flow.fn.__name__}",
        "parameters": each.parameters(settings),
        "schedules": [schedule],
        "work_pool": {"name": pool},
    }
