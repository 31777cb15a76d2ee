"""The assisted-manual stage: people make masks with the model's help. What it shares with the next is stages/rounds."""
