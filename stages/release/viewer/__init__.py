"""A page in a release that shows some of its images with their masks."""
