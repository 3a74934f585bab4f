"""Pages for people: HTML files that need nothing else, and what is drawn in them."""
