"""Where in an image a network sees an object."""
