"""From the bytes of people's files to one person's posts: the one way of all files."""
