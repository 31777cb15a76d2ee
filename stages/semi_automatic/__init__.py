"""The semi-automatic stage: images are prefilled with confident masks, and people add what is missing."""
