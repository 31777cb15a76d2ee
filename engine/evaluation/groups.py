"""Test of whether a metric differs between groups of images, such as domains: a permutation test over images.

The statistic is the largest difference between the means of two groups, over masks. Each permutation gives the groups'
names to other whole images, because masks of one image are not independent. Shape letters: N masks, I images, G groups,
P permutations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.evaluation.scores import MaskScore, figure_values

PERMUTATIONS = 2000
MIN_IMAGES = 2
"""Smallest number of images of a group; a metric of fewer is not tested."""


@dataclass(frozen=True, kw_only=True)
class GroupTest:
    """Result of the test of one metric."""

    metric: str
    largest_difference: float
    """Largest difference between the means of two groups."""
    p: float
    """Fraction of permutations with a difference at least as large, the observed one included."""
    p_adjusted: float
    """`p` times the number of metrics tested (Bonferroni), at most 1."""
    comparisons: int
    """Number of metrics tested."""
    groups: int


def compare_domains(scores: Sequence[MaskScore], names: Sequence[str], seed: int) -> list[GroupTest]:
    """Test each metric for a difference between the domains of its images.

    Returns:
        A result for each metric; empty where fewer than two domains have `MIN_IMAGES` images. Smaller domains are left
        out of the test.
    """
    images_of: dict[str, set[str]] = {}
    for score in scores:
        images_of.setdefault(score.domain, set()).add(score.image)
    large = {domain for domain, images in images_of.items() if len(images) >= MIN_IMAGES}
    if len(large) < 2:
        return []
    kept = [score for score in scores if score.domain in large]
    images = [score.image for score in kept]
    tested = [
        (name, *permute(images, [score.domain for score in kept], figure_values(kept, name), seed)) for name in names
    ]
    return [
        GroupTest(
            metric=name,
            largest_difference=difference,
            p=p,
            p_adjusted=min(1.0, p * len(tested)),
            comparisons=len(tested),
            groups=len(large),
        )
        for name, difference, p in tested
    ]


def permute(
    images: Sequence[str], groups: Sequence[str], values_N: np.ndarray, seed: int, permutations: int = PERMUTATIONS
) -> tuple[float, float]:
    """Return the largest difference between group means, and the fraction of permutations that reach it.

    Args:
        images: Name of the image of each of N masks.
        groups: Name of the group of each mask; all masks of an image have the same.
        values_N: Value of each mask, float64 [N].
        seed: seed of the permutations.
        permutations: Number of random permutations.
    """
    _, first_I, image_N = np.unique(images, return_index=True, return_inverse=True)
    names, group_N = np.unique(groups, return_inverse=True)
    group_I = group_N[first_I]
    sum_I, count_I = np.bincount(image_N, weights=values_N), np.bincount(image_N)

    def spread(of_I: np.ndarray) -> float:
        sum_G = np.bincount(of_I, weights=sum_I, minlength=len(names))
        mean_G = sum_G / np.bincount(of_I, weights=count_I, minlength=len(names))
        return float(mean_G.max() - mean_G.min())

    rng = np.random.default_rng(seed)
    observed = spread(group_I)
    reached = sum(spread(rng.permutation(group_I)) >= observed - 1e-12 for _ in range(permutations))
    return observed, (1 + reached) / (1 + permutations)
