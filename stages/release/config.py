"""Settings of a release."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class ReleaseConfig:
    """Settings that decide which images leave, and the bytes of the files they leave in."""

    not_deidentified: bool = False
    """Whether images may leave in which nobody searched for faces and licence plates."""
    plates_reviewed: bool = False
    """Whether people have looked for licence plates in all images that no detector of plates searched."""
    allow_unlicensed: bool = False
    """Whether images without a licence leave, too."""
    with_sources: bool = True
    """Whether the source of each image leaves, for attribution: the name of its photo, below the folder given at
    ingest.
    """
    images_per_tar: int = 11_186
    """Maximum number of images in one tar, as in SA-1B: about 11 million images in 1,000 tars."""
    holdout_every: int = 5
    """Number of images of which about one is held out, by its id in the dataset. The dataset's own split into training
    and held-out images, for the same number, is the same.
    """
    with_coco: bool = False
    """Whether a COCO file of all masks is written, too."""

    title: str = "Images and masks"
    """Name of the release in its documents."""
    creator: str = ""
    """Who makes the release, for its documents; empty for nobody named."""
    url: str = ""
    """Address at which the release will be found; empty where it has none yet."""
    contact: str = ""
    """Address for questions and for the wish that an image be taken down; empty for none."""

    def __post_init__(self) -> None:
        if self.images_per_tar < 1:
            raise ValueError(f"images_per_tar is {self.images_per_tar}, expected at least 1")
        for name in ("title", "creator", "url", "contact"):
            if not getattr(self, name).isprintable():
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one line of printable text")
        if not self.title.strip():
            raise ValueError("the title is empty, expected a name of the release")
        if self.holdout_every < 2:
            raise ValueError(f"holdout_every is {self.holdout_every}, expected at least 2")

    def settings(self) -> dict[str, object]:
        """Return the settings as JSON values."""
        return asdict(self)
