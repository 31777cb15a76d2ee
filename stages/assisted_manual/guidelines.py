"""What annotators are told in an assisted-manual round, unless the round has guidelines of its own."""

GUIDELINES = """\
Make masks of everything that you could name or describe: things, parts of things, and stuff such as sky or road.
Begin with what stands out most. Names are not asked for.
When a mask takes more than about 30 seconds, leave it and go on to the next image.
"""
"""Guidelines that follow section 4 and appendix F of the paper."""
