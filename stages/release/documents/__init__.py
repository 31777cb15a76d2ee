"""Documents of a release, made of its manifest: card, datasheet, licences, and Croissant metadata."""
