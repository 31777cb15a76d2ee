"""Settings of the commands: they are composed of each component's own dataclass and loaded in one documented order."""
