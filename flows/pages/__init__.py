"""What the HTML pages share: markup, SVG plots, the style sheet."""
