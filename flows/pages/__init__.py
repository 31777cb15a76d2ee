"""Parts that the HTML pages share: markup, SVG plots and the style sheet."""
