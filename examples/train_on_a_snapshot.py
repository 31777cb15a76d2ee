"""Train a model further on the masks of a dataset's snapshot, then load the new version.

python examples/train_on_a_snapshot.py DATASET WORK_FOLDER [PARENT] [STEPS]

`gigamask train` does the same, on several processes or machines too. For a loop of your own, take the images and masks
from `gigamask.training_samples(dataset, snapshot)`, as examples/query_a_dataset.py does.
"""

import sys

import gigamask


def main(uri: str, work_folder: str, parent: str = "seed", steps: str = "300") -> None:
    """Take a snapshot, train on it, and compare the first click before and after on images that were held out."""
    dataset = gigamask.Dataset.open(uri)
    snapshot = dataset.snapshot().snapshot_id  # training names a snapshot, never "the newest state"
    network = gigamask.load_model(parent).sam.config

    trained = gigamask.train_on_snapshot(
        dataset,
        snapshot,
        work_folder=work_folder,
        parent=parent,
        name="trained",
        train=gigamask.seed_recipe(network, steps=int(steps)),
        data=gigamask.DataConfig(held_out_every=2),  # few photos: hold out every second one
    )

    print(f"{trained.model_id}: trained on {trained.trained_images} images, {trained.held_out_images} held out")
    print(f"mean IoU of the first click, held out: {trained.chosen_before:.3f} -> {trained.chosen_after:.3f}")
    print(f"weights: {trained.weights}")
    gigamask.load_model(trained.weights)


if __name__ == "__main__":
    main(*sys.argv[1:])
