"""Selection: which images are worth a person's time next."""
