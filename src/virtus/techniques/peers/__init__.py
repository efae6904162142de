"""Outside programs that do a technique's job, so that they stand in every comparison."""
