"""The sample photos that `gigamask run` uses when no photos are given; they are part of scikit-image."""

from pathlib import Path

NAMES = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "hubble_deep_field.jpg", "ihc.png",
         "motorcycle_left.png", "retina.jpg", "rocket.jpg")  # fmt: skip


def sample_photos() -> list[Path]:
    """List the sample photos on this machine; nothing is downloaded.

    Raises:
        ValueError: Some of the photos are missing.
    """
    import skimage.data  # costs 0.2 s, and only this job needs it

    folder = Path(skimage.data.__file__).parent
    missing = [name for name in NAMES if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder}: scikit-image's sample photos {missing} are missing; give photos of your own")
    return [folder / name for name in NAMES]
