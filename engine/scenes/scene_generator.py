"""Scene generator: procedural images with exact, nested masks, rendered in batches on the training device.

Scenes follow the dead leaves model (Lee, Mumford and Huang 2001): objects with radii of density r^-3 cover each other.
The objects are divided into parts and textured procedurally after "Learning to See by Looking at Noise" (Baradad et al.
2021). No photo is read.
"""

import torch

from engine.scenes.batch import SceneBatch, number_visible
from engine.scenes.camera import apply_camera, clean_cameras, draw_cameras
from engine.scenes.layout import plan_scenes
from engine.scenes.random_draws import RandomDraws
from engine.scenes.render import find_surface, paint, scene_slices
from engine.scenes.styles import leaf_styles
from engine.scenes.textures import Atlas, default_atlas

MIN_SIDE = 64
"""Smallest side of a scene, in pixels."""


def generate_scenes(
    count: int,
    side: int,
    generator: torch.Generator,
    device: torch.device | str,
    *,
    atlas: Atlas | None = None,
    clean: bool = False,
) -> SceneBatch:
    """Generate `count` scenes of side x side pixels on `device`; equal states of `generator` give equal scenes.

    Args:
        atlas: textures, as `textures.make_atlas` makes them; None: default textures, made once per process and device.
        clean: True to omit the camera's effects (light fields, blur, noise, JPEG); shading and soft borders stay.

    Raises:
        ValueError: The count is below 1, or the side is below `MIN_SIDE`.
    """
    # Seed both generators
    if count < 1 or side < MIN_SIDE:
        raise ValueError(f"got count {count}, side {side}; expected count >= 1 and side >= {MIN_SIDE}")
    device = torch.device(device)
    seed = int(torch.randint(0, 2**62, (), generator=generator, device=generator.device))
    draws = RandomDraws(seed)
    device_generator = torch.Generator(device).manual_seed(seed)
    textures = atlas if atlas is not None else default_atlas(str(device))

    # Draw layout, styles and cameras
    layout = plan_scenes(draws, count, side)
    objects = layout.objects
    styles_GC = leaf_styles(draws, objects, count, side).to(device)
    cameras = clean_cameras(count) if clean else draw_cameras(draws, layout.microscopy_B)

    # Render
    surface = find_surface(objects, count, side, textures, device)
    images = []
    for rows in scene_slices(count, side, device):
        visible = surface.rows(rows)
        colours_B3SS = paint(visible, styles_GC, textures)
        images.append(apply_camera(colours_B3SS, visible.leaf_BSS, cameras.rows(rows), textures, device_generator))

    # Number the visible leaves, parts and wholes
    scene_G, part_G, whole_G = (tree.to(device) for tree in objects.tree())
    ids, part_BL, whole_BL, leaves_B = number_visible(surface.leaf_BSS, scene_G, part_G, whole_G)
    return SceneBatch(images_B3HW=torch.cat(images), ids_BHW=ids, part_BL=part_BL, whole_BL=whole_BL, leaves_B=leaves_B)
