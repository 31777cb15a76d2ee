"""The automatic generator, asked about pictures whose objects are known.

Most tests ask a network that cannot err: `ColourNetwork` answers a point with all pixels of the point's grey level,
through SAM's own interface and low-resolution masks. What it should find is then plain from the picture. The last tests
ask real networks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data

from engine.automatic.config import PRESETS, GenerateConfig
from engine.automatic.diagnostics import Diagnostics
from engine.automatic.filters import Filter
from engine.automatic.generate import Generated, GeneratedMask, generate_masks
from engine.images import Frame, resize
from engine.model.card import released_card
from engine.model.config import SamConfig, VitConfig
from engine.model.sam import Decoded, Sam, build_sam
from engine.model.weights import Model
from engine.prompts import Prompts
from storage import rle

Box = tuple[int, int, int, int]

SIDE = 128
TINY = SamConfig(
    image_encoder=VitConfig(width=32, depth=2, heads=2, global_blocks=(1,)),
    input_side=SIDE,
    embedding_stride=16,
    width=32,
    decoder_mlp_width=64,
    decoder_heads=2,
    iou_head_width=32,
)


@dataclass(frozen=True)
class ColourNetwork:
    """Sam's interface over pictures of flat grey levels: three masks of a point, the first is its region.

    The second is the region drawn without conviction (unstable), the third everything but the background.
    """

    iou: tuple[float, float, float] = (0.96, 0.95, 0.5)

    @property
    def config(self) -> SamConfig:
        return replace(TINY, embedding_stride=4, width=16)

    def parameters(self) -> Iterator[torch.Tensor]:
        return iter([torch.zeros(1)])

    def preprocess(self, image_HW3: np.ndarray) -> torch.Tensor:
        size_hw = Frame.whole(image_HW3.shape[:2], SIDE).scaled_hw
        grey = torch.tensor(resize(image_HW3, size_hw)[..., 0]).float()
        return F.pad(grey, (0, SIDE - size_hw[1], 0, SIDE - size_hw[0]), value=-1.0)[None]

    def encode(self, grey_B1SS: torch.Tensor) -> torch.Tensor:
        return F.pixel_unshuffle(grey_B1SS, 4)

    def decode(self, embeddings_1CEE: torch.Tensor, prompts: Prompts) -> Decoded:
        grey_SS = F.pixel_shuffle(embeddings_1CEE, 4)[0, 0]
        columns, rows = prompts.points_PK2[:, 0].long().unbind(1)
        same_PSS = (grey_SS - grey_SS[rows, columns][:, None, None]).abs() < 8
        region = torch.where(same_PSS, 10.0, -10.0)
        objects = torch.where(grey_SS > 8, 10.0, -10.0).expand_as(region)
        logits_PMLL = torch.stack([region, region.clamp(-0.5, 0.5), objects], dim=1)
        return Decoded(logits_PMLL=logits_PMLL, iou_PM=torch.tensor(self.iou).expand(len(region), -1))


def network(**changes: Any) -> Model:
    card = replace(released_card("colour", TINY), predicted_iou_threshold=0.9, stability_threshold=0.8)
    return Model(name="colour", model_id="colour-0", sam=ColourNetwork(**changes), card=card)


def picture(*boxes_and_levels: tuple[Box, int], size_hw: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    grey = np.zeros(size_hw, dtype=np.uint8)
    for (x0, y0, x1, y1), level in boxes_and_levels:
        grey[y0:y1, x0:x1] = level
    return np.dstack([grey] * 3)


SQUARE, BAR = (10, 12, 50, 60), (70, 20, 110, 100)
TWO_OBJECTS = picture((SQUARE, 100), (BAR, 200))
GRID = GenerateConfig(points_per_side=8)


def ask(
    image: np.ndarray, config: GenerateConfig = GRID, *, embeddings: torch.Tensor | None = None, **changes: Any
) -> Generated:
    return generate_masks(network(**changes), image, config, embeddings=embeddings, decoder="plain")


def boxes(result: Generated) -> list[tuple[int, int, int, int]]:
    return sorted(mask.box_xyxy for mask in result.masks)


def assert_accounts_add_up(diagnostics: Diagnostics) -> None:
    assert diagnostics.candidates == diagnostics.kept + sum(diagnostics.taken.values())


def test_every_object_and_the_background_come_out_once() -> None:
    result = ask(TWO_OBJECTS)
    assert boxes(result) == [(0, 0, 128, 128), SQUARE, BAR]
    assert sorted(mask.area_px for mask in result.masks) == [40 * 48, 40 * 80, 128 * 128 - 40 * 48 - 40 * 80]
    assert_accounts_add_up(result.diagnostics)
    assert result.diagnostics.candidates == 3 * 64
    assert result.diagnostics.taken[Filter.FAILED_PREDICTED_IOU] == 64  # the third mask of every point
    assert result.diagnostics.taken[Filter.FAILED_STABILITY] == 64  # the second
    assert result.diagnostics.taken[Filter.DUPLICATE_IN_CROP] == 64 - 3


def test_a_record_describes_its_own_mask() -> None:
    for mask in ask(TWO_OBJECTS).masks:
        assert mask.box_xyxy == rle.box_xyxy(mask.rle)
        assert mask.area_px == rle.area(mask.rle)
        assert mask.predicted_iou == pytest.approx(0.96)
        assert mask.stability_score > 0.9
        assert mask.crop_xyxy == (0, 0, 128, 128)
        x, y = mask.point_xy
        assert rle.decode(mask.rle)[int(y), int(x)]


@pytest.mark.parametrize("size_hw", [(96, 200), (200, 96), (300, 300), (50, 40)])
def test_photographs_of_any_shape_get_masks_of_their_own_size(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    box = (width // 4, height // 4, width * 3 // 4, height * 3 // 4)
    result = ask(picture((box, 150), size_hw=size_hw))
    found = [mask for mask in result.masks if mask.box_xyxy[0] > 0]
    assert len(found) == 1
    assert (found[0].rle.height, found[0].rle.width) == size_hw
    assert np.abs(np.array(found[0].box_xyxy) - box).max() <= max(1, max(size_hw) // SIDE + 1)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (300, 1), (2, 3), (5, 5)])
@pytest.mark.parametrize("preset", ["grid", "paper"])
def test_photographs_of_a_few_pixels_do_not_break_the_run(size_hw: tuple[int, int], preset: str) -> None:
    config = replace(PRESETS[preset], points_per_side=4, min_region_px=0, max_area_fraction=None)
    result = ask(picture(size_hw=size_hw), config)
    assert_accounts_add_up(result.diagnostics)
    assert result.masks
    assert all((mask.rle.height, mask.rle.width) == size_hw for mask in result.masks)


def test_thresholds_left_open_are_the_model_cards() -> None:
    assert ask(TWO_OBJECTS).masks
    assert not ask(TWO_OBJECTS, replace(GRID, predicted_iou_threshold=0.97)).masks
    unsure = ask(TWO_OBJECTS, iou=(0.89, 0.5, 0.5))
    assert unsure.diagnostics.taken[Filter.FAILED_PREDICTED_IOU] == unsure.diagnostics.candidates
    assert not ask(TWO_OBJECTS, iou=(0.5, 0.95, 0.5)).masks
    assert ask(TWO_OBJECTS, replace(GRID, stability_threshold=0.0), iou=(0.5, 0.95, 0.5)).masks


def test_an_empty_result_says_which_filter_took_the_masks_and_what_to_change() -> None:
    unsure = ask(TWO_OBJECTS, iou=(0.4, 0.3, 0.2)).diagnostics
    assert unsure.explain() == (
        "0 of 192 candidate masks kept: 192 predicted IoU too low; "
        "lower generate.predicted_iou_threshold (best: 0.400)."
    )
    unstable = ask(TWO_OBJECTS, iou=(0.1, 0.95, 0.2)).diagnostics
    assert unstable.explain() == (
        "0 of 192 candidate masks kept: 128 predicted IoU too low, 64 unstable; "
        "lower generate.predicted_iou_threshold (best: 0.950) and lower generate.stability_threshold (best: 0.000)."
    )
    small = ask(TWO_OBJECTS, replace(GRID, min_mask_area_px=10**6)).diagnostics
    assert "below the smallest area" in small.explain()
    assert ask(TWO_OBJECTS).diagnostics.explain().startswith("3 of 192 candidate masks kept: ")


def test_diagnostics_of_photographs_add_up_and_survive_json() -> None:
    one, other = ask(TWO_OBJECTS).diagnostics, ask(TWO_OBJECTS, iou=(0.4, 0.3, 0.2)).diagnostics
    both = one + other
    assert (both.candidates, both.kept) == (384, 3)
    assert both.best_predicted_iou == pytest.approx(0.96)
    assert_accounts_add_up(both)
    assert Diagnostics.from_json(both.to_json()) == both
    assert Diagnostics() + one == one


def test_smallest_and_largest_area_look_at_a_masks_whole_area() -> None:
    least = ask(TWO_OBJECTS, replace(GRID, min_mask_area_px=40 * 48 + 1))
    assert boxes(least) == [(0, 0, 128, 128), BAR]
    assert least.diagnostics.taken[Filter.TOO_SMALL] > 0
    most = ask(TWO_OBJECTS, replace(GRID, max_mask_area_px=40 * 80))
    assert boxes(most) == [SQUARE, BAR]
    assert most.diagnostics.taken[Filter.TOO_LARGE] > 0
    assert_accounts_add_up(least.diagnostics)
    assert_accounts_add_up(most.diagnostics)


def test_a_mask_of_95_percent_of_the_photograph_is_dropped_unless_asked_for() -> None:
    plain = picture(((0, 0, 10, 10), 100))
    assert not [mask for mask in ask(plain).masks if mask.area_px > 1000]
    assert ask(plain).diagnostics.taken[Filter.COVERS_IMAGE] > 0
    kept = ask(plain, replace(GRID, max_area_fraction=None))
    assert [mask.area_px for mask in kept.masks if mask.area_px > 1000] == [128 * 128 - 100]


def test_small_holes_are_filled_small_islands_removed_and_masks_of_islands_alone_dropped() -> None:
    image = picture((SQUARE, 100), ((20, 30, 26, 36), 0), ((60, 60, 65, 65), 100), ((96, 96, 104, 104), 220))
    config = replace(GRID, points_per_side=16)
    result = ask(image, config)
    assert boxes(result) == [(0, 0, 128, 128), SQUARE]
    square = next(mask for mask in result.masks if mask.box_xyxy == SQUARE)
    assert square.area_px == 40 * 48
    assert result.diagnostics.cleaned >= 1
    assert result.diagnostics.taken[Filter.DISSOLVED] == 1  # the island of 64 px
    assert_accounts_add_up(result.diagnostics)
    untouched = ask(image, replace(config, min_region_px=0))
    assert (96, 96, 104, 104) in boxes(untouched)
    assert untouched.diagnostics.cleaned == 0


def test_of_masks_that_clean_up_made_alike_the_one_that_needed_none_stays() -> None:
    """The third mask is square and bar together; with the bar reduced to a speck, clean-up makes it the square."""
    image = picture((SQUARE, 100), ((110, 110, 115, 115), 200))
    result = ask(image, replace(GRID, max_area_fraction=0.5), iou=(0.95, 0.1, 0.99))
    assert boxes(result) == [SQUARE]
    assert result.masks[0].predicted_iou == pytest.approx(0.95)
    assert result.diagnostics.taken[Filter.DUPLICATE_AFTER_CLEANUP] == 1
    assert_accounts_add_up(result.diagnostics)


CROPS = replace(GRID, points_per_side=4, crop_layers=1)


def masks_at(result: Generated, box: Box) -> list[GeneratedMask]:
    """Masks whose box is this one within the two pixels that half the resolution may cost."""
    return [mask for mask in result.masks if np.abs(np.array(mask.box_xyxy) - box).max() <= 2]


def test_an_object_between_the_points_of_the_whole_photograph_is_found_in_a_crop() -> None:
    small = (14, 14, 28, 28)
    image = picture((small, 200), size_hw=(256, 256))
    assert not masks_at(ask(image, replace(CROPS, crop_layers=0)), small)
    result = ask(image, CROPS)
    (found,) = masks_at(result, small)
    assert found.crop_xyxy != (0, 0, 256, 256)
    x0, y0, x1, y1 = found.crop_xyxy
    assert x0 <= found.point_xy[0] < x1
    assert y0 <= found.point_xy[1] < y1
    assert (found.rle.height, found.rle.width) == (256, 256)


def test_what_an_inner_crop_edge_cuts_comes_from_the_whole_photograph_alone() -> None:
    bridge = (20, 60, 236, 190)  # no window of layer 1 holds it
    result = ask(picture((bridge, 200), size_hw=(256, 256)), CROPS)
    assert [mask.crop_xyxy for mask in masks_at(result, bridge)] == [(0, 0, 256, 256)]
    assert len(result.masks) == 2  # and the background
    assert result.diagnostics.taken[Filter.CUT_BY_CROP_EDGE] > 0
    assert_accounts_add_up(result.diagnostics)


def test_across_crops_the_nearest_look_at_an_object_stays() -> None:
    box = (20, 20, 100, 100)
    result = ask(picture((box, 200), size_hw=(256, 256)), CROPS)
    (found,) = masks_at(result, box)
    assert found.crop_xyxy == (0, 0, 172, 172)
    assert result.diagnostics.taken[Filter.DUPLICATE_ACROSS_CROPS] > 0


def test_the_presets_ask_1024_and_3072_points() -> None:
    per_layer = {"grid": [1024], "paper": [1024, 4 * 256, 16 * 64]}
    for name, expected in per_layer.items():
        config = PRESETS[name]
        layers = range(config.crop_layers + 1)
        assert [4**layer * config.points_in_layer(layer) ** 2 for layer in layers] == expected


def test_embeddings_at_hand_replace_the_encoder() -> None:
    sam = network().sam
    embeddings = sam.encode(sam.preprocess(TWO_OBJECTS)[None])
    assert boxes(ask(np.zeros_like(TWO_OBJECTS), embeddings=embeddings)) == boxes(ask(TWO_OBJECTS))


def test_embeddings_of_the_whole_photograph_do_not_serve_crops() -> None:
    sam = network().sam
    with pytest.raises(ValueError, match="expected crop_layers=0"):
        ask(TWO_OBJECTS, CROPS, embeddings=sam.encode(sam.preprocess(TWO_OBJECTS)[None]))


@pytest.mark.parametrize(
    "change",
    [
        {"points_per_side": 0},
        {"crop_layers": -1},
        {"crop_points_downscale": 0},
        {"crop_layers": 6, "crop_points_downscale": 2},
        {"crop_overlap_ratio": 1.0},
        {"stability_offset": -1.0},
        {"min_region_px": -1},
        {"max_area_fraction": 0.0},
        {"min_mask_area_px": -1},
        {"min_mask_area_px": 9, "max_mask_area_px": 8},
        {"points_per_batch": 0},
        {"crops_per_batch": 0},
        {"precision": "fp8"},
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"generate\.\w+: got .* expected"):
        GenerateConfig(**change)


def test_an_image_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        ask(np.zeros((20, 20, 3), dtype=np.float32))


@pytest.fixture(scope="module")
def real_network(randomise: Callable[[Sam, int], Sam]) -> Model:
    """A small network with random weights, its logits scaled so that masks exist."""
    torch.manual_seed(0)
    sam = randomise(build_sam(TINY), 0)
    for mlp in sam.mask_decoder.output_hypernetworks_mlps:
        mlp.layers[-1].weight.data *= 20
    return Model(name="random", model_id="random-0", sam=sam, card=released_card("random", TINY))


def open_config(model: Model, image: np.ndarray) -> GenerateConfig:
    """Thresholds at the medians of this picture's own scores, so that every filter has work; NMS off."""
    config = replace(GRID, predicted_iou_threshold=-1.0, stability_threshold=0.0, box_nms_threshold=1.01)
    every = generate_masks(model, image, replace(config, min_region_px=0, max_area_fraction=None)).masks
    ious, stabilities = ([getattr(mask, name) for mask in every] for name in ("predicted_iou", "stability_score"))
    return replace(
        config,
        predicted_iou_threshold=float(np.median(ious)) + 1e-4,
        stability_threshold=float(np.median(stabilities)) + 1e-4,
        min_region_px=0,
    )


def assert_same_masks(ours: Generated, theirs: Generated) -> None:
    assert len(ours.masks) == len(theirs.masks) > 5
    for mine, other in zip(ours.masks, theirs.masks, strict=True):
        assert mine.point_xy == other.point_xy
        assert mine.predicted_iou == pytest.approx(other.predicted_iou, abs=1e-5)
        assert rle.iou(mine.rle, other.rle) > 0.999
    assert ours.diagnostics.taken == theirs.diagnostics.taken


@pytest.fixture(scope="module")
def real_question(real_network: Model) -> tuple[np.ndarray, GenerateConfig, Generated]:
    """A photograph, settings under which every filter has work, and the masks."""
    photo = data.astronaut()[:300, :200]
    config = open_config(real_network, photo)
    return photo, config, generate_masks(real_network, photo, config)


def test_the_grid_decoder_and_the_networks_own_give_the_same_masks(
    real_network: Model, real_question: tuple[np.ndarray, GenerateConfig, Generated]
) -> None:
    photo, config, masks = real_question
    assert_same_masks(masks, generate_masks(real_network, photo, config, decoder="plain"))


@pytest.mark.parametrize("points_per_batch", [1, 7, 64])
def test_the_size_of_a_batch_changes_nothing(
    real_network: Model, real_question: tuple[np.ndarray, GenerateConfig, Generated], points_per_batch: int
) -> None:
    photo, config, masks = real_question
    config = replace(config, points_per_batch=points_per_batch)
    assert_same_masks(masks, generate_masks(real_network, photo, config))


@pytest.mark.parametrize("crops_per_batch", [3, 21])  # a last batch of two, and more than there are
def test_crops_encoded_together_give_the_masks_of_crops_encoded_one_by_one(
    real_network: Model, real_question: tuple[np.ndarray, GenerateConfig, Generated], crops_per_batch: int
) -> None:
    photo, config, _ = real_question
    config = replace(config, points_per_side=4, crop_layers=1, crop_nms_threshold=1.01)
    together = replace(config, crops_per_batch=crops_per_batch)
    assert_same_masks(generate_masks(real_network, photo, together), generate_masks(real_network, photo, config))

    image = picture(((14, 14, 28, 28), 200), ((150, 40, 190, 90), 100), size_hw=(256, 256))
    one_by_one = ask(image, CROPS).masks
    assert {mask.crop_xyxy for mask in one_by_one} == {(0, 0, 172, 172)}  # not the whole photograph
    assert ask(image, replace(CROPS, crops_per_batch=crops_per_batch)).masks == one_by_one


@pytest.mark.parametrize("decoder", ["grid", "plain"])
def test_bf16_finds_nearly_the_masks_of_fp32_and_leaves_the_weights_alone(
    real_network: Model, real_question: tuple[np.ndarray, GenerateConfig, Generated], decoder: str
) -> None:
    photo, config, masks = real_question
    config = replace(config, predicted_iou_threshold=-9.0, stability_threshold=0.0)
    exact = generate_masks(real_network, photo, config).masks
    found = generate_masks(real_network, photo, replace(config, precision="bf16"), decoder=decoder).masks
    iou_NM = rle.iou_matrix([mask.rle for mask in exact], [mask.rle for mask in found])
    assert (iou_NM.max(axis=1) > 0.9).mean() > 0.9
    assert (iou_NM.max(axis=0) > 0.9).mean() > 0.9
    assert not {mask.predicted_iou for mask in exact} & {mask.predicted_iou for mask in found}
    assert {weight.dtype for weight in real_network.sam.parameters()} == {torch.float32}
    assert_same_masks(generate_masks(real_network, photo, real_question[1]), masks)


def test_bf16_keeps_no_converted_weights_that_other_threads_would_read(
    real_network: Model, real_question: tuple[np.ndarray, GenerateConfig, Generated]
) -> None:
    photo, config, _ = real_question
    seen: list[tuple[bool, bool]] = []
    with real_network.sam.image_encoder.register_forward_hook(
        lambda *_: seen.append((torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()))
    ):
        generate_masks(real_network, photo, replace(config, points_per_side=1, precision="bf16"))
    assert seen == [(True, False)]
