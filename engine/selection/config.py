"""Names of the orders in which a round chooses images; importing them loads nothing else."""

from typing import Literal, get_args

Ranking = Literal["diversity", "uncertainty", "disagreement", "mix"]
"""Ranking of images: `diversity` is k-centre over embeddings (Sener and Savarese 2018), `uncertainty` the spread of the
three predicted IoUs, `disagreement` that of two prompts for one mask, and `mix` is diversity weighted by the other two.
"""
ChooseBy = Literal["random", Ranking]
"""Order of a round without a query: a random one, or a ranking."""
RANKINGS: tuple[Ranking, ...] = get_args(Ranking)
CHOOSE_BY: tuple[ChooseBy, ...] = get_args(ChooseBy)
