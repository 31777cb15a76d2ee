"""Published figures that the tables of the experiments show beside the measured ones, each with its source.

Fractions in [0, 1], where the papers write per cent. None of them was measured on the images of a user's own run, so
that a difference compares datasets as well as models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Published:
    """Figures of one method, as its source prints them."""

    method: str
    on: str
    """Data that the figures were measured on, and the metric where it is another one than ours."""
    figures: Mapping[str, float]
    """Figures by the name of the metric in `--json`; a metric of another kind has another name."""
    source: str

    def to_json(self) -> dict[str, Any]:
        """Make the JSON form."""
        return asdict(self)


_SAM = "Kirillov et al. 2023, Segment Anything, arXiv 2304.02643"
_SAM_2 = "Ravi et al. 2024, SAM 2, arXiv 2408.00714"

POINTS = (
    Published(
        method="SAM ViT-H",
        on="mean over the 23 datasets of SAM's evaluation",
        figures={"miou_1_chosen": 0.581, "miou_5": 0.813},
        source=_SAM_2,
    ),
    Published(
        method="SAM ViT-B",
        on="mean over the 23 datasets of SAM's evaluation",
        figures={"miou_1_chosen": 0.559, "miou_5": 0.809},
        source="Xiong et al. 2024, Efficient Track Anything, table 3",
    ),
)
"""Single and several points; the paper itself shows these figures as a chart alone."""

BOXES = (
    Published(
        method="SAM ViT-H",
        on="COCO, boxes of ViTDet-H: mask AP, not mIoU",
        figures={"mask_ap": 0.465},
        source=f"{_SAM}, table 5",
    ),
    Published(
        method="SAM ViT-H",
        on="LVIS v1, boxes of ViTDet-H: mask AP, not mIoU",
        figures={"mask_ap": 0.447},
        source=f"{_SAM}, table 5",
    ),
)
"""Box to mask. The paper prompts with the boxes of a detector, and publishes no figure for ground truth boxes."""

_BSDS = "BSDS500 test, 200 images"
_ARBELAEZ = "Arbelaez et al. 2011, Contour detection and hierarchical image segmentation"
EDGES = (
    Published(
        method="SAM ViT-H",
        on=_BSDS,
        figures={"ods": 0.768, "ois": 0.786, "ap": 0.794, "r50": 0.928},
        source=f"{_SAM}, table 3",
    ),
    Published(method="gPb-OWT-UCM", on=_BSDS, figures={"ods": 0.73, "ois": 0.76, "ap": 0.73}, source=_ARBELAEZ),
    Published(method="people, each against the others", on=_BSDS, figures={"ods": 0.80}, source=_ARBELAEZ),
)
"""Edges, by the benchmark of BSDS500."""

_LVIS = "LVIS v1 val"
PROPOSALS = (
    Published(
        method="SAM ViT-H",
        on=_LVIS,
        figures={
            "ar_all": 0.593,
            "ar_small": 0.455,
            "ar_medium": 0.816,
            "ar_large": 0.869,
            "ar_frequent": 0.591,
            "ar_common": 0.639,
            "ar_rare": 0.658,
        },
        source=f"{_SAM}, table 4",
    ),
    Published(
        method="SAM ViT-H, single output",
        on=_LVIS,
        figures={
            "ar_all": 0.549,
            "ar_small": 0.428,
            "ar_medium": 0.767,
            "ar_large": 0.744,
            "ar_frequent": 0.547,
            "ar_common": 0.598,
            "ar_rare": 0.620,
        },
        source=f"{_SAM}, table 4",
    ),
    Published(
        method="ViTDet-H (trained on LVIS)",
        on=_LVIS,
        figures={
            "ar_all": 0.630,
            "ar_small": 0.517,
            "ar_medium": 0.808,
            "ar_large": 0.870,
            "ar_frequent": 0.631,
            "ar_common": 0.633,
            "ar_rare": 0.583,
        },
        source=f"{_SAM}, table 4",
    ),
)
"""Object proposals: mask AR@1000."""
