"""Pure arithmetic on weighted stacks: scale, replace, merge. Total weight in equals total weight out, always."""
