import json
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch

from engine.model.config import MOBILE, VIT_B, VIT_H, VIT_L, HybridConfig, SamConfig, VitConfig
from engine.model.image_encoder import attend_globally, attend_in_windows
from engine.model.sam import PIXEL_MEAN, PIXEL_STD, Outputs, Sam, build_sam
from engine.model.windows import cut_windows, join_windows
from engine.prompts import Prompts
from tests.paths import SAM_PARAMETERS

SMALL = SamConfig(
    image_encoder=VitConfig(width=48, depth=2, heads=3, global_blocks=(1,)),
    input_side=160,
    width=32,
    decoder_heads=4,
    decoder_mlp_width=64,
)


@pytest.fixture(scope="module")
def small() -> Sam:
    torch.manual_seed(0)
    return build_sam(SMALL)


def point_prompts(count: int, points: int = 1) -> Prompts:
    generator = torch.Generator().manual_seed(1)
    return Prompts(
        points_PK2=torch.rand(count, points, 2, generator=generator) * SMALL.input_side,
        labels_PK=torch.ones(count, points, dtype=torch.int64),
    )


@pytest.mark.parametrize(("name", "config"), [("vit_b", VIT_B), ("vit_l", VIT_L), ("vit_h", VIT_H), ("mobile", MOBILE)])
def test_names_and_shapes_are_those_of_the_original_definitions(name: str, config: SamConfig) -> None:
    with torch.device("meta"):
        sam = Sam(config)
    original = json.loads(SAM_PARAMETERS.read_text())[name]
    assert {key: list(value.shape) for key, value in sam.state_dict().items()} == original
    sam.load_state_dict({key: torch.empty(shape, device="meta") for key, shape in original.items()}, strict=True)


def test_the_seeds_decoder_has_the_original_names() -> None:
    config = SamConfig(image_encoder=HybridConfig(), input_side=320, embedding_stride=8, width=128)
    with torch.device("meta"):
        ours = {name for name in Sam(config).state_dict() if not name.startswith("image_encoder.")}
    original = json.loads(SAM_PARAMETERS.read_text())["vit_b"]
    assert ours == {name for name in original if not name.startswith("image_encoder.")}


def test_preprocessing_scales_the_longest_side_normalises_and_pads_with_zeros(small: Sam) -> None:
    image = skimage.data.astronaut()[:256, :512]
    pixels = small.preprocess(image)
    assert pixels.shape == (3, 160, 160)
    assert pixels.dtype == torch.float32
    assert pixels[:, 80:].abs().max() == 0
    grey = (pixels[:, :80].permute(1, 2, 0) * torch.tensor(PIXEL_STD) + torch.tensor(PIXEL_MEAN)).numpy()
    assert np.abs(grey.mean((0, 1)) - image.mean((0, 1))).max() < 1
    assert grey.min() > -0.01
    assert grey.max() < 255.01


def test_preprocessing_refuses_a_grey_image(small: Sam) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        small.preprocess(np.zeros((10, 10), np.uint8))


def test_encoding_a_batch_is_encoding_each_image(small: Sam) -> None:
    pixels = torch.randn(3, 3, 160, 160, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        together, apart = small.encode(pixels), torch.cat([small.encode(image[None]) for image in pixels])
    assert together.shape == (3, 32, 10, 10)
    assert torch.allclose(together, apart, atol=1e-5)


def test_the_vit_refuses_another_input_side(small: Sam) -> None:
    with pytest.raises(ValueError, match=r"expected \[B, 3, 160, 160\]"):
        small.encode(torch.zeros(1, 3, 176, 160))


@pytest.mark.parametrize(("outputs", "count"), [("multimask", 3), ("single", 1), ("all", 4)])
def test_outputs_choose_among_the_same_four_masks(small: Sam, outputs: Outputs, count: int) -> None:
    embeddings = torch.randn(1, 32, 10, 10, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        decoded = small.decode(embeddings, point_prompts(5), outputs=outputs)
        four = small.decode(embeddings, point_prompts(5), outputs="all")
    chosen = {"multimask": slice(1, 4), "single": slice(0, 1), "all": slice(0, 4)}[outputs]
    assert decoded.logits_PMLL.shape == (5, count, 40, 40)
    assert torch.equal(decoded.logits_PMLL, four.logits_PMLL[:, chosen])
    assert torch.equal(decoded.iou_PM, four.iou_PM[:, chosen])


@pytest.mark.parametrize("with_masks", [False, True])
def test_prompts_on_several_images_are_answered_as_on_each_alone(small: Sam, with_masks: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    embeddings = torch.randn(2, 32, 10, 10, generator=generator)
    points = point_prompts(4)
    masks = torch.randn(4, 1, 40, 40, generator=generator) if with_masks else None
    prompts = Prompts(points_PK2=points.points_PK2, labels_PK=points.labels_PK, mask_logits_P1LL=masks)
    image_index = torch.tensor([1, 0, 1, 1])
    with torch.no_grad():
        together = small.decode(embeddings, prompts, image_index_P=image_index)
        for row, image in enumerate(image_index):
            one = Prompts(
                points_PK2=points.points_PK2[row : row + 1],
                labels_PK=points.labels_PK[row : row + 1],
                mask_logits_P1LL=None if masks is None else masks[row : row + 1],
            )
            alone = small.decode(embeddings[image : image + 1], one)
            assert torch.allclose(together.logits_PMLL[row], alone.logits_PMLL[0], atol=1e-5)
            assert torch.allclose(together.iou_PM[row], alone.iou_PM[0], atol=1e-5)


def test_several_embeddings_need_an_index(small: Sam) -> None:
    with pytest.raises(ValueError, match="got 2 embeddings; image_index_P must name each prompt's"):
        small.decode(torch.zeros(2, 32, 10, 10), point_prompts(2))


def test_embeddings_of_another_network_are_refused(small: Sam) -> None:
    with pytest.raises(ValueError, match=r"got embeddings \[1, 256, 64, 64\], expected \[B, 32, 10, 10\]"):
        small.decode(torch.zeros(1, 256, 64, 64), point_prompts(2))


def test_mask_prompts_of_another_size_are_refused(small: Sam) -> None:
    points = point_prompts(2)
    prompts = Prompts(
        points_PK2=points.points_PK2, labels_PK=points.labels_PK, mask_logits_P1LL=torch.zeros(2, 1, 8, 8)
    )
    with pytest.raises(ValueError, match=r"got mask prompts \[2, 1, 8, 8\], expected \[P, 1, 40, 40\]"):
        small.decode(torch.zeros(1, 32, 10, 10), prompts)


def test_points_may_come_in_double_precision(small: Sam) -> None:
    prompts = point_prompts(3)
    double = Prompts(points_PK2=prompts.points_PK2.double(), labels_PK=prompts.labels_PK)
    with torch.no_grad():
        one = small.decode(torch.ones(1, 32, 10, 10), prompts)
        other = small.decode(torch.ones(1, 32, 10, 10), double)
    assert other.logits_PMLL.dtype == torch.float32
    assert torch.allclose(one.logits_PMLL, other.logits_PMLL, atol=1e-5)


def test_a_padding_point_counts_for_nothing_but_itself(small: Sam) -> None:
    points = point_prompts(2, points=2).points_PK2
    labels = torch.tensor([[1, -1], [1, -1]])
    moved = points.clone()
    moved[:, 1] += 17.0
    with torch.no_grad():
        tokens, _ = small.prompt_encoder(Prompts(points_PK2=points, labels_PK=labels))
        tokens_moved, _ = small.prompt_encoder(Prompts(points_PK2=moved, labels_PK=labels))
    assert torch.equal(tokens, tokens_moved)


@pytest.mark.parametrize("with_masks", [False, True])
def test_the_decoder_works_on_a_window_that_is_not_square(small: Sam, with_masks: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    embeddings = torch.randn(2, 32, 4, 6, generator=generator)
    position = small.prompt_encoder.get_dense_pe()[:, :, 2:6, 3:9]
    prompts = point_prompts(3)
    masks = torch.randn(3, 1, 16, 24, generator=generator) if with_masks else None
    prompts = Prompts(points_PK2=prompts.points_PK2, labels_PK=prompts.labels_PK, mask_logits_P1LL=masks)
    sparse, dense = small.prompt_encoder(prompts)
    logits, iou = small.mask_decoder(embeddings, position, sparse, dense, image_index_P=torch.tensor([0, 1, 1]))
    assert logits.shape == (3, 4, 16, 24)
    assert iou.shape == (3, 4)


def test_every_parameter_of_prompts_and_decoder_gets_a_gradient() -> None:
    torch.manual_seed(0)
    sam = build_sam(SMALL)
    prompts = Prompts(
        points_PK2=torch.rand(3, 3, 2) * 160,
        labels_PK=torch.tensor([[1, 0, -1]] * 3),
        boxes_P4=torch.rand(3, 4) * 160,
        mask_logits_P1LL=torch.randn(3, 1, 40, 40),
    )
    embeddings = sam.encode(torch.randn(2, 3, 160, 160))
    index = torch.tensor([0, 1, 0])
    answers = [
        sam.decode(embeddings, prompts, outputs="all", image_index_P=index),
        sam.decode(embeddings, point_prompts(3), outputs="all", image_index_P=index),
    ]
    sum(answer.logits_PMLL.square().mean() + answer.iou_PM.square().mean() for answer in answers).backward()
    without = [name for name, weight in sam.named_parameters() if weight.grad is None or not weight.grad.abs().sum()]
    # softmax does not see a bias of the keys: their gradient is zero, up to rounding
    assert [name for name in without if not name.endswith("k_proj.bias")] == []


def test_both_forms_of_relative_attention_agree_in_double_precision() -> None:
    generator = torch.Generator().manual_seed(6)
    height, width = 5, 7
    query, key, value = torch.randn(3, 2, 3, height * width, 8, generator=generator, dtype=torch.float64)
    rows = torch.randn(2, 3, height * width, height, generator=generator, dtype=torch.float64)
    columns = torch.randn(2, 3, height * width, width, generator=generator, dtype=torch.float64)
    one = attend_in_windows(query, key, value, rows, columns)
    other = attend_globally(query, key, value, rows, columns)
    assert (one - other).abs().max() < 1e-12


@pytest.mark.parametrize(("height", "width"), [(14, 14), (20, 20), (5, 31), (28, 14)])
def test_windows_join_to_the_grid_they_were_cut_from(height: int, width: int) -> None:
    grid = torch.randn(2, height, width, 3, generator=torch.Generator().manual_seed(7))
    padding = torch.tensor([1.0, 2.0, 3.0])
    windows = cut_windows(grid, 14, padding)
    assert windows.shape[0] == 2 * -(-height // 14) * -(-width // 14)
    assert torch.equal(join_windows(windows, (2, height, width)), grid)
    if height % 14 and width % 14:
        assert torch.equal(windows[-1, -1, -1], padding)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels_PK": torch.ones(2, 1, dtype=torch.int64)}, r"points \[3, 1, 2\] and labels \[2, 1\]"),
        ({"labels_PK": torch.full((3, 1), 2)}, "labels"),
        ({"boxes_P4": torch.zeros(2, 4)}, r"boxes \[2, 4\], expected \[3, 4\]"),
        ({"mask_logits_P1LL": torch.zeros(3, 40, 40)}, r"expected \[3, 1, L, L\]"),
        ({"points_PK2": torch.zeros(3, 2)}, r"expected \[P, K, 2\]"),
    ],
)
def test_prompts_that_do_not_fit_together_are_refused(change: dict[str, Any], message: str) -> None:
    fields = {"points_PK2": torch.zeros(3, 1, 2), "labels_PK": torch.ones(3, 1, dtype=torch.int64)}
    with pytest.raises(ValueError, match=message):
        Prompts(**fields | change)
