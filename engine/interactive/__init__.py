"""Interactive segmentation: clicks and boxes in, masks out."""
