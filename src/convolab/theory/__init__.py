"""The course's pencil-and-paper questions, answered and checked by running them."""
