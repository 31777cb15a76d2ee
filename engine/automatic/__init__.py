"""SAM's automatic mask generator (appendix B of the paper)."""
