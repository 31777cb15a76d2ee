"""SAM: image encoders, prompt encoder, mask decoder, configurations and weights."""
