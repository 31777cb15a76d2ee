"""Release: the images and masks of a snapshot as files in the form of SA-1B, and the check of such files."""
