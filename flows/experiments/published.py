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
_SAM_2 = "Ravi et al. 2024, SAM 2, arXiv 2408.00714, table 6"

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
        method="EfficientViT-SAM-XL1",
        on="COCO val2017, ground truth boxes",
        figures={"miou_box": 0.799},
        source="README of github.com/mit-han-lab/efficientvit",
    ),
    Published(
        method="EfficientViT-SAM-XL1",
        on="LVIS v1 val, ground truth boxes",
        figures={"miou_box": 0.799},
        source="README of github.com/mit-han-lab/efficientvit",
    ),
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
