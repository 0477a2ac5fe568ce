"""From affinities to neurons."""
