"""The same work on many images: which ones, in what share, and what to do when one of them fails."""
