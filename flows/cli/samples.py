"""The sample photographs `gigamask run` uses when none are given: those that scikit-image carries in its package."""

from pathlib import Path

NAMES = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "hubble_deep_field.jpg", "ihc.png",
         "motorcycle_left.png", "retina.jpg", "rocket.jpg")  # fmt: skip


def sample_photos() -> list[Path]:
    """Paths of the sample photographs on this machine; nothing is downloaded."""
    import skimage.data  # costs 0.2 s, and only this job needs it

    folder = Path(skimage.data.__file__).parent
    missing = [name for name in NAMES if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder}: scikit-image's sample photographs {missing} are not there; give a folder of your own"
        )
    return [folder / name for name in NAMES]
