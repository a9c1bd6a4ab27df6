"""Labels: every encoding to ids; palettes and colorings."""
