"""Images and labels: datasets in memory, where they come from, and single images."""
