"""SAM: image encoders, prompt encoder, mask decoder, configurations, weights and their download."""
