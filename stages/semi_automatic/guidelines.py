"""What annotators are told in a semi-automatic round, unless the round has guidelines of its own."""

GUIDELINES = """\
Some masks are there already. Reject those that are wrong, mend those that are nearly right.
Then make masks of everything that is missing and that you could name or describe, in order of prominence.
When a mask takes more than about 30 seconds, leave it and go on to the next image.
"""
"""Guidelines that follow section 4 and appendix F of the paper."""
