"""Settings of the commands: each component's own dataclass, composed and loaded in one documented order."""
