"""The tab of images: show what is meant, get it in the others, correct, compare, take it along."""
