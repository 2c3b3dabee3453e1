"""One setting at a time away from what is shipped, measured bare and served; and the table that comes of it."""
