"""The semi-automatic stage: images come with confident masks, and people add what is missing."""
