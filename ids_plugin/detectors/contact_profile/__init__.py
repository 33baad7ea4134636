"""The control detector: what a host's dealings with one peer look like over days, and what was said
in them."""
